"""`info` and `check`: what a data set looks like, and what is wrong with it; nothing is written into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from semivox.config import Config
from semivox.datasets.check import Problem
from semivox.datasets.check_set import check_dataset
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.splits import Split, split_by_files
from semivox.errors import UserError
from semivox.io.volume import IGNORE, read_image, read_label
from semivox.preprocessing.fingerprint import Fingerprint, fingerprint
from semivox.preprocessing.workspace import stored_split
from semivox.progress import ProgressFactory, no_progress
from semivox.reporting.dataset_figure import Sample, save_dataset_figure

SAMPLES = 6


@dataclass(frozen=True)
class Information:
    """A data set and what was measured of it."""

    dataset: Dataset
    split: Split
    measured: Fingerprint

    def as_dict(self) -> dict[str, Any]:
        """Give plain data; volumes and foreground of labeled cases alone."""
        foreground = self.measured.foreground
        return {
            "dataset": self.dataset.name,
            "root": str(self.dataset.root),
            "channels": list(self.dataset.channels),
            "labels": dict(zip(self.dataset.class_names, self.dataset.class_values, strict=True)),
            "split": self.split.model_dump(mode="json"),
            "summary": self.measured.summary(),
            "foreground_intensity": None if foreground is None else [item.as_dict() for item in foreground],
            "cases": [asdict(case) for case in self.measured.cases],
        }


@dataclass(frozen=True)
class CheckResult:
    """What `check` found: problems, errors first; `hidden` cases whose labels the split hides."""

    dataset: str
    cases: int
    hidden: int
    problems: Sequence[Problem]

    @property
    def errors(self) -> int:
        return sum(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Give plain data."""
        return {
            "dataset": self.dataset,
            "cases": self.cases,
            "labels_not_opened": self.hidden,
            "errors": self.errors,
            "warnings": len(self.problems) - self.errors,
            "problems": [asdict(problem) for problem in self.problems],
        }


def info(
    data: Path | str,
    *,
    config: Config | None = None,
    figure: Path | None = None,
    workers: int = 2,
    progress: ProgressFactory = no_progress,
) -> Information:
    """Measure a data set: shapes, voxel sizes and intensities of all training scans, volumes of the classes.

    Labels are opened for the labeled cases of the split alone; test cases are not opened at all.

    Args:
        data: a raw folder or a workspace.
        config: settings; `config.split` and `config.plan.trust_image_geometry` matter here.
        figure: a PNG to draw the distributions and some scans into.
        workers: processes; 0 works in this process.
        progress: shows the progress.
    """
    config = config or Config()
    dataset = open_dataset(Path(data))
    split = stored_split(Path(data), dataset, config.split)
    trust = bool(config.plan.trust_image_geometry)
    with progress("fingerprint") as report:
        measured = fingerprint(dataset, split, report, workers=workers, trust_image_geometry=trust)
    result = Information(dataset, split, measured)
    if figure is not None:
        samples = [_sample(result, index, trust) for index in _spread(len(measured.cases), SAMPLES)]
        save_dataset_figure(figure, dataset.name, dataset.channels, dataset.class_names, measured, samples)
    return result


def check(
    data: Path | str,
    *,
    config: Config | None = None,
    workers: int = 2,
    progress: ProgressFactory = no_progress,
) -> CheckResult:
    """Read every file of a data set once and collect all problems, each with its file and what to do.

    Label files of cases that the split calls unlabeled are not opened, those of test cases are.

    Args:
        data, config, workers, progress: as for `info`.

    Raises:
        UserError: the folder or its description cannot be read at all.
    """
    config = config or Config()
    problems: list[Problem] = []

    def note(error: UserError) -> None:
        problems.append(Problem.of(error))

    dataset = open_dataset(Path(data), note)
    split = _split(Path(data), dataset, config, note)
    with progress("check") as report:
        problems += check_dataset(
            dataset,
            split,
            workers=workers,
            trust_image_geometry=bool(config.plan.trust_image_geometry),
            progress=report,
        )
    problems.sort(key=lambda problem: problem.severity != "error")
    hidden = sum(dataset.case(name).label is not None for name in split.unlabeled)
    return CheckResult(dataset.name, len(dataset.cases), hidden, tuple(problems))


def _split(data: Path, dataset: Dataset, config: Config, note: Callable[[UserError], None]) -> Split:
    """The split to go by; where none can be made, every case with a label file is labeled."""
    try:
        return stored_split(data, dataset, config.split)
    except UserError as error:
        note(error)
    return split_by_files(dataset)


def _spread(count: int, wanted: int) -> list[int]:
    """Indices spread evenly over `count` cases."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, wanted))})


def _sample(found: Information, index: int, trust: bool) -> Sample:
    """Read a case again to draw it, its label only if it is labeled."""
    name = found.measured.cases[index].name
    case, dataset = found.dataset.case(name), found.dataset
    image = read_image(case.images, dataset.channels, trust_image_geometry=trust)
    label = None
    if case.label is not None and name in found.split.labeled:
        values, ignore = dataset.class_values, dataset.ignore_value
        label = read_label(case.label, values, image, ignore, trust_image_geometry=trust).array
        label[label == IGNORE] = 0
    return Sample(name, image.array[0], label, image.spacing_mm, "".join(nib.aff2axcodes(image.affine)))
