"""`semivox check`: every file of a data set is read in full; all that is wrong is collected."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np

from semivox.config import Config
from semivox.datasets.case import Notice, printable
from semivox.datasets.dataset import Case, Dataset, open_dataset
from semivox.datasets.splits import Split, split_by_files, stored_split
from semivox.errors import UserError, shortened
from semivox.io.formats import NIFTI_ENDINGS, Array
from semivox.io.geometry import affine_text, check_grid, same_affine
from semivox.io.reader import run_jobs
from semivox.io.volume import IGNORE, Volume, check_channels, read_header, read_image, read_label
from semivox.progress import ProgressFactory, no_progress

Severity = Literal["error", "warning"]

_SIDES_MM = (0.01, 50.0)
_HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class Problem:
    """A message about a data set, as `check` prints it and stores it as JSON; parts as of `UserError`."""

    severity: Severity  # an error stops or spoils training or scores; a warning may be right as it is
    what: str
    case: str | None = None  # its name, if it is one case's alone
    path: str | None = None
    found: str | None = None
    expected: str | None = None
    do: str | None = None

    @staticmethod
    def of(error: UserError, case: str | None = None) -> Problem:
        """Turn a message into an error, or a notice into a warning."""
        parts = (error.path, error.found, error.expected)
        path, found, expected = (None if part is None else printable(str(part)) for part in parts)
        severity: Severity = "warning" if isinstance(error, Notice) else "error"
        return Problem(severity, error.what, case, path, found, expected, error.do)


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


def check_folder(
    data: Path, config: Config, *, workers: int = 2, progress: ProgressFactory = no_progress
) -> CheckResult:
    """Read every file of a data set once and collect all problems, each with its file and what to do.

    Label files of cases that the split calls unlabeled are not opened, those of test cases are. Of `config`,
    `split` and `plan.trust_image_geometry` matter. A folder that cannot be read at all is a `UserError`.
    """
    dataset = open_dataset(data, strict=False)
    errors = list(dataset.notices)
    split = split_by_files(dataset)  # every case with a label file is labeled
    with _collecting(errors):
        split = stored_split(data, dataset, config.split)
    found: list[tuple[UserError, str | None]] = [(error, None) for error in errors]
    reports = _read_cases(dataset, split, bool(config.plan.trust_image_geometry), workers, progress)
    found += [(error, name) for name, report in reports.items() for error in report.problems]
    found += _duplicates(reports, {**dict.fromkeys(reports, "unused"), **split.roles()})
    sizes = [voxels for name in split.labeled if (voxels := reports[name].class_voxels) is not None]
    found += [(error, None) for error in missing_classes(dataset, sizes)]
    problems = sorted((Problem.of(*pair) for pair in found), key=lambda problem: problem.severity != "error")
    hidden = len(dataset.with_label(split.unlabeled))
    return CheckResult(dataset.name, len(dataset.cases), hidden, tuple(problems))


def _read_cases(
    dataset: Dataset, split: Split, trust: bool, workers: int, progress: ProgressFactory
) -> dict[str, CaseReport]:
    """Read all scans and all labels that the split does not hide."""
    described = replace(dataset, cases=(), notices=())
    function = partial(check_case, dataset=described, trust=trust)
    cases = [replace(case, label=None) if case.name in split.unlabeled else case for case in dataset.cases]
    done: dict[str, CaseReport] = {}
    with progress("check") as report:
        for case, found in run_jobs(function, cases, workers, name=lambda case: case.name, doing="checking"):
            done[case.name] = found
            report(len(done), len(cases), case.name)
    return {case.name: done[case.name] for case in cases}


def missing_classes(dataset: Dataset, sizes: Sequence[Sequence[float]]) -> list[UserError]:
    """Return an error if the labels are all empty, else a notice for each class that none of them holds.

    `sizes` are voxels or volume of each foreground class, for each labeled training case.
    """
    if not sizes:
        return []
    totals, labels = np.sum(sizes, axis=0).tolist(), f"{len(sizes)} labels"
    if not any(totals):
        what, do = "All labels of the labeled cases are empty", "correct them, or choose other labeled cases"
        return [UserError(what, f"background alone in {labels}", "some foreground", do, dataset.root)]
    what, expected = "A class is in none of the training labels", "some voxels of every declared class"
    do = "label cases that show it, or correct the labels in dataset.json; no method can learn it"
    absent = [name for name, total in zip(dataset.class_names[1:], totals, strict=True) if total == 0]
    return [Notice(what, f"no voxel of {name} in {labels}", expected, do, dataset.root) for name in absent]


class CaseReport(NamedTuple):
    """What was found in one case."""

    problems: list[UserError]
    channels: list[tuple[str, Path]]  # digest of shape and values in canonical axes, and the file
    class_voxels: list[int] | None  # of each foreground class


def check_case(case: Case, dataset: Dataset, trust: bool) -> CaseReport:
    """Read all files of a case; a problem in one does not hide those of the others.

    A case whose label is hidden comes without its path, and the data set without its cases.
    """
    files, names, problems = case.images, dataset.channels, list[UserError]()
    channels: list[tuple[str, Path]] = []
    first: Volume | None = None
    voxels: list[int] | None = None
    if len(files) > 1:
        with _collecting(problems):
            check_channels(len(files), names, files)
    for path in files:
        with _collecting(problems):
            volume = read_image([path], names if len(files) == 1 else 1)
            if first is not None:
                check_grid(path, volume.grid, first.grid, f"channel {files[0].name}", trust=trust)
            problems += [*_odd(volume, path), *_two_places(path)]
            first = first or volume
            channels += [(_digest(channel, volume.affine), path) for channel in volume.array]
    if (file := case.label) is not None:
        with _collecting(problems):
            label = read_label(file, dataset.class_values, ignore=dataset.ignore_value)
            counts = np.bincount(label.array.ravel(), minlength=IGNORE + 1)
            voxels = counts[1 : dataset.num_classes].tolist()
            if not any(voxels):
                do = "if the scan was never segmented, remove the label file: the case is then unlabeled"
                problems.append(Notice("The label is empty", "background alone", "some foreground", do, file))
            if first is not None:
                check_grid(file, label.grid, first.grid, "its image", trust=trust)
    return CaseReport(problems, channels, voxels)


@contextmanager
def _collecting(problems: list[UserError]) -> Iterator[None]:
    """Append an error of the block to `problems` instead of raising it."""
    try:
        yield
    except UserError as error:
        problems.append(error)


def _odd(volume: Volume, path: Path) -> Iterator[UserError]:
    """Find what no reader objects to: constant channels, voxel sizes that are no millimetres."""
    for channel in volume.array:
        if (value := channel.min()) == channel.max():
            found, do = f"the value {value:g} in all voxels", "replace this file, or remove the case"
            yield UserError("The image is constant", found, "a scan", do, path)
    if not _SIDES_MM[0] <= min(volume.spacing_mm) <= max(volume.spacing_mm) <= _SIDES_MM[1]:
        found = " x ".join(f"{side:g}" for side in volume.spacing_mm) + " mm"
        what, do = "The voxel size is implausible", "correct the header; is it in another unit?"
        yield Notice(what, found, f"between {_SIDES_MM[0]} and {_SIDES_MM[1]} mm along each axis", do, path)


def _two_places(path: Path) -> Iterator[UserError]:
    """Find a NIfTI header whose qform and sform place the scan differently."""
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        return
    header = read_header(path)
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except ValueError:  # a qform that is no rotation places nothing
        return
    if sform is None or qform is None or same_affine(qform, sform, header.get_data_shape()[:3]):
        return
    found, expected = f"qform {affine_text(qform)}", f"sform {affine_text(sform)}, which counts here"
    do = "find out which one is right, and write it into both: other programs may take the other"
    yield Notice("The header places the scan in two ways", found, expected, do, path)


def _digest(array: Array, affine: Array) -> str:
    """Return a digest of shape and values, whatever order and direction of axes, type and compression."""
    turned = nib.orientations.apply_orientation(array, nib.orientations.io_orientation(affine))
    return hashlib.sha256(repr(turned.shape).encode() + np.ascontiguousarray(turned).tobytes()).hexdigest()


def _duplicates(
    reports: Mapping[str, CaseReport], role: Mapping[str, str]
) -> Iterator[tuple[UserError, str]]:
    """Find channels of the same content; yield also the first case."""
    places: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for name, report in reports.items():
        for digest, path in report.channels:
            places[digest].append((name, path))
    for same in filter(lambda same: len(same) > 1, places.values()):
        roles = {role[name] for name, _ in same}
        held_out = sorted(roles.intersection(_HELD_OUT))
        kind: type[UserError] = Notice
        what, do = "The same image occurs more than once", "keep one of the files"
        if len({name for name, _ in same}) == 1:
            kind, what, do = UserError, "Two channels of a case hold the same image", "replace one of them"
        elif held_out and len(roles) > 1:
            kind, what = UserError, f"A scan of the {' and '.join(held_out)} cases is also used otherwise"
            do = "remove it from one of the sides: its score would mean nothing"
        found = shortened((f"{name} ({role[name]}, {path.name})" for name, path in same), 8)
        yield kind(what, found, "every scan once", do, same[0][1]), same[0][0]
