"""What a data set looks like, and what is wrong with it; nothing is written into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

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

SAMPLES = 6


class Sample(NamedTuple):
    """One scan to be drawn.

    Attributes:
        name: of the case.
        image: one channel (X, Y, Z).
        label: class indices (X, Y, Z), or None.
        spacing_mm: voxel size.
        axes: where the array's axes point to, as `nibabel.aff2axcodes` says.
    """

    name: str
    image: NDArray[Any]
    label: NDArray[Any] | None
    spacing_mm: tuple[float, float, float]
    axes: str


@dataclass(frozen=True)
class Information:
    """A data set and what was measured of it."""

    dataset: Dataset
    split: Split
    measured: Fingerprint

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; volumes and foreground of labeled cases alone."""
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
        """How many of them are errors."""
        return sum(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "dataset": self.dataset,
            "cases": self.cases,
            "labels_not_opened": self.hidden,
            "errors": self.errors,
            "warnings": len(self.problems) - self.errors,
            "problems": [asdict(problem) for problem in self.problems],
        }


def info(
    data: Path, config: Config, *, workers: int = 2, progress: ProgressFactory = no_progress
) -> Information:
    """Measure shapes, voxel sizes and intensities of all training scans, and volumes of the classes.

    Labels are opened for the labeled cases of the split alone; test cases are not opened at all.

    Args:
        data: a raw folder or a workspace.
        config: settings; `config.split` and `config.plan.trust_image_geometry` matter here.
        workers: processes; 0 works in this process.
        progress: shows the progress.
    """
    dataset = open_dataset(data)
    split = stored_split(data, dataset, config.split)
    trust = bool(config.plan.trust_image_geometry)
    with progress("fingerprint") as report:
        measured = fingerprint(dataset, split, report, workers=workers, trust_image_geometry=trust)
    return Information(dataset, split, measured)


def read_samples(found: Information, *, trust_image_geometry: bool = False) -> list[Sample]:
    """Read some scans again to draw them, evenly spread over the cases, with the labels of labeled ones."""
    dataset, count = found.dataset, len(found.measured.cases)
    samples = []
    for index in sorted({round(index) for index in np.linspace(0, count - 1, min(count, SAMPLES))}):
        case = dataset.case(found.measured.cases[index].name)
        image = read_image(case.images, dataset.channels, trust_image_geometry=trust_image_geometry)
        label = None
        if case.label is not None and case.name in found.split.labeled:
            values, ignore = dataset.class_values, dataset.ignore_value
            trusted = {"trust_image_geometry": trust_image_geometry}
            label = read_label(case.label, values, image, ignore, **trusted).array
            label[label == IGNORE] = 0
        axes = "".join(nib.aff2axcodes(image.affine))
        samples.append(Sample(case.name, image.array[0], label, image.spacing_mm, axes))
    return samples


def check(
    data: Path, config: Config, *, workers: int = 2, progress: ProgressFactory = no_progress
) -> CheckResult:
    """Read every file of a data set once and collect all problems, each with its file and what to do.

    Label files of cases that the split calls unlabeled are not opened, those of test cases are.
    Arguments as for `info`.

    Raises:
        UserError: the folder or its description cannot be read at all.
    """
    problems: list[Problem] = []

    def note(error: UserError) -> None:
        problems.append(Problem.of(error))

    dataset = open_dataset(data, note)
    try:
        split = stored_split(data, dataset, config.split)
    except UserError as error:
        note(error)
        split = split_by_files(dataset)  # every case with a label file is labeled
    trust = bool(config.plan.trust_image_geometry)
    with progress("check") as report:
        problems += check_dataset(
            dataset, split, workers=workers, trust_image_geometry=trust, progress=report
        )
    problems.sort(key=lambda problem: problem.severity != "error")
    hidden = sum(dataset.case(name).label is not None for name in split.unlabeled)
    return CheckResult(dataset.name, len(dataset.cases), hidden, tuple(problems))
