"""All cases of a data set read in full: what is wrong with each, and what shows when they are compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semivox.config import Config
from semivox.datasets.check import CaseReport, CheckJob, Problem, check_case
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.listing import Notice
from semivox.datasets.splits import Split, split_by_files, stored_split
from semivox.errors import UserError, shortened
from semivox.io.formats import Array
from semivox.io.reader import run_jobs
from semivox.progress import Progress, ProgressFactory, no_progress

_FEWEST = 5  # cases that say what is usual
_DEVIATIONS = 8.0  # robust standard deviations
_FACTOR = 8.0  # of the usual width of intensities
_SPACING_FACTOR = 3.0
_HELD_OUT = ("val", "test")

_Found = Iterator[tuple[str, UserError]]  # the case, and what is wrong with it


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
    problems: list[Problem] = []
    dataset = open_dataset(data, lambda error: problems.append(Problem.of(error)))
    try:
        split = stored_split(data, dataset, config.split)
    except UserError as error:
        problems.append(Problem.of(error))
        split = split_by_files(dataset)  # every case with a label file is labeled
    trust = bool(config.plan.trust_image_geometry)
    with progress("check") as report:
        problems += check_dataset(
            dataset, split, workers=workers, trust_image_geometry=trust, progress=report
        )
    problems.sort(key=lambda problem: problem.severity != "error")
    hidden = sum(dataset.case(name).label is not None for name in split.unlabeled)
    return CheckResult(dataset.name, len(dataset.cases), hidden, tuple(problems))


def check_dataset(
    dataset: Dataset,
    split: Split,
    *,
    workers: int = 2,
    trust_image_geometry: bool = False,
    progress: Progress | None = None,
) -> list[Problem]:
    """Read all scans and all labels that the split does not hide; return every problem, errors first."""
    hidden, described = set(split.unlabeled), replace(dataset, cases=(), notices=())
    cases = [replace(case, label=None) if case.name in hidden else case for case in dataset.cases]
    jobs = [CheckJob(case, described, trust_image_geometry) for case in cases]
    found: dict[str, CaseReport] = {}
    for job, result in run_jobs(check_case, jobs, workers, name=lambda job: job.case.name, doing="checking"):
        found[job.case.name] = result
        if progress is not None:
            progress(len(found), len(jobs), job.case.name)
    reports = [found[case.name] for case in cases]
    problems = [Problem.of(error, report.case.name) for report in reports for error in report.problems]
    for compared in (
        _duplicates(reports, {**dict.fromkeys(found, "unused"), **split.roles()}),
        *(_unusual_intensities(reports, *channel) for channel in enumerate(dataset.channels)),
        _unusual_spacings(reports),
    ):
        problems += [Problem.of(error, case) for case, error in compared]
    sizes = [found[name].class_voxels for name in split.labeled if name in found]
    problems += map(Problem.of, missing_classes(dataset, [size for size in sizes if size is not None]))
    problems += map(Problem.of, dataset.notices)
    return sorted(problems, key=lambda problem: problem.severity != "error")


def missing_classes(dataset: Dataset, sizes: Sequence[Sequence[float]]) -> list[UserError]:
    """Return an error if the labels are all empty, else a notice for each class that none of them holds.

    `sizes` are voxels or volume of each class, the background first, of each labeled training case.
    """
    if not sizes:
        return []
    totals = np.sum(sizes, axis=0).tolist()
    if not any(totals[1:]):
        what, found = "All labels of the labeled cases are empty", f"background alone in {len(sizes)} labels"
        do = "choose other labeled cases, or correct the label files"
        return [UserError(what, found, "foreground in one of them at least", do, dataset.root)]
    what, expected = "A class is in none of the training labels", "some voxels of every declared class"
    do = "label cases that show it, or correct the labels in dataset.json; no method can learn it"
    absent = [name for name, total in zip(dataset.class_names, totals, strict=True) if total == 0]
    found = f"no voxel of {{}} in {len(sizes)} labels"
    return [Notice(what, found.format(name), expected, do, dataset.root) for name in absent]


def _duplicates(reports: Sequence[CaseReport], role: Mapping[str, str]) -> _Found:
    images: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    labels: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for report in reports:
        for channel in report.channels.values():
            images[channel.digest].append((report.case.name, channel.path))
        if report.label_digest is not None and report.case.label is not None:
            labels[report.label_digest].append((report.case.name, report.case.label))
    for places in filter(lambda places: len(places) > 1, images.values()):
        names = list(dict.fromkeys(name for name, _ in places))
        seen = {role[name] for name in names}
        held_out = sorted(seen.intersection(_HELD_OUT))
        kind: type[UserError] = Notice
        what, do = "The same image occurs more than once", "keep one of the files"
        if len(names) == 1:
            kind, what = UserError, "Two channels of a case hold the same image"
            do = "replace one of the files"
        elif held_out and len(seen) > 1:
            kind, what = UserError, f"A scan of the {' and '.join(held_out)} cases is also used otherwise"
            do = "remove it from one of the sides: its score would mean nothing"
        found = shortened((f"{name} ({role[name]}, {path.name})" for name, path in places), 8)
        expected = "every scan once; compared by content, whatever axes, type and compression"
        yield names[0], kind(what, found, expected, do, places[0][1])
    for places in filter(lambda places: len(places) > 1, labels.values()):
        what, expected = "The same label occurs more than once", "a label of its own for every scan"
        found = shortened((f"{name} ({path.name})" for name, path in places), 8)
        do = "look at these cases; one of the labels may belong to another scan"
        yield places[0][0], Notice(what, found, expected, do, places[0][1])


def _unusual_intensities(reports: Sequence[CaseReport], index: int, name: str) -> _Found:
    """Compare width and position of each scan's values with the median over the cases."""
    all_of_them = [(report.case.name, report.channels.get(index)) for report in reports]
    known = [(case, level) for case, level in all_of_them if level is not None and level.high > level.low]
    if len(known) < _FEWEST:
        return
    widths = np.array([level.high - level.low for _, level in known])
    middles = np.array([level.middle for _, level in known])
    usual, centre = float(np.median(widths)), float(np.median(middles))
    odd = _outliers(np.log(widths), float(np.log(_FACTOR))) | _outliers(middles, usual / 2)
    what = "The intensities differ from those of the other scans"
    expected = f"a range about {usual:g} wide, as usual here (median {centre:g})"
    do = (
        "look at the scan: another modality, unit or scaling? harmless if every scan is normalised"
        " by its own mean (zscore), not with ct or none"
    )
    for (case, level), is_odd in zip(known, odd.tolist(), strict=True):
        found = f"{name}: {level.low:g} to {level.high:g}, median {level.middle:g}"
        if is_odd:
            yield case, Notice(what, found, expected, do, level.path)


def _outliers(values: Array, least: float) -> Array:
    """Find values further than `_DEVIATIONS` robust standard deviations and `least` from the median."""
    distance = np.abs(values - np.median(values))
    return np.asarray(distance > max(_DEVIATIONS * 1.4826 * float(np.median(distance)), least))


def _unusual_spacings(reports: Sequence[CaseReport]) -> _Found:
    known = [(report.case, report.spacing_mm) for report in reports if report.spacing_mm is not None]
    if len(known) < _FEWEST:
        return
    usual = np.median([spacing for _, spacing in known], axis=0)
    what = "The voxel size differs much from that of the other scans"
    do = "check the header; if it is right, much detail is lost or invented when resampling"
    for case, spacing in known:
        if np.maximum(spacing / usual, usual / spacing).max() > _SPACING_FACTOR:
            found, expected = (
                " x ".join(f"{side:g}" for side in sides) + " mm" for sides in (spacing, usual)
            )
            expected += f", within a factor of {_SPACING_FACTOR:g}"
            yield case.name, Notice(what, found, expected, do, case.images[0])
