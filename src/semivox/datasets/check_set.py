"""All cases of a data set read in full: what is wrong with each, and what shows when they are compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semivox.datasets.check import CaseReport, CheckJob, Problem, Severity, check_case
from semivox.datasets.dataset import Dataset
from semivox.datasets.listing import Notice
from semivox.datasets.splits import Split
from semivox.errors import UserError, shortened
from semivox.io.reader import run_jobs
from semivox.progress import Progress

_FEWEST = 5  # cases that say what is usual
_DEVIATIONS = 8.0  # robust standard deviations
_FACTOR = 8.0  # of the usual width of intensities
_SPACING_FACTOR = 3.0
_HELD_OUT = ("val", "test")


def check_dataset(
    dataset: Dataset,
    split: Split,
    *,
    workers: int = 2,
    trust_image_geometry: bool = False,
    progress: Progress | None = None,
) -> list[Problem]:
    """Read all scans and all labels that the split does not hide, and report every problem.

    Args:
        dataset: the cases.
        split: label files of its unlabeled cases are not opened.
        workers: processes; 0 works in this one.
        trust_image_geometry: see `read_image`.
        progress: called after each case with the number done, the number of all, and the case's name.

    Returns:
        Errors first, each group in the order of the cases.
    """
    hidden = set(split.unlabeled)
    jobs = [
        CheckJob(
            replace(case, label=None) if case.name in hidden else case,
            dataset.channels,
            dataset.class_values,
            dataset.ignore_value,
            trust_image_geometry,
        )
        for case in dataset.cases
    ]
    found: dict[str, CaseReport] = {}
    for job, result in run_jobs(
        check_case, jobs, min(workers, len(jobs)), name=lambda job: job.case.name, doing="checking"
    ):
        found[job.case.name] = result
        if progress is not None:
            progress(len(found), len(jobs), job.case.name)
    reports = [found[job.case.name] for job in jobs]
    problems = [problem for report in reports for problem in report.problems]
    problems += _duplicates(reports, {**dict.fromkeys(found, "unused"), **split.roles()})
    problems += [*_unusual_intensities(reports, dataset.channels), *_unusual_spacings(reports)]
    sizes = [found[name].class_voxels for name in split.labeled if name in found]
    problems += map(Problem.of, missing_classes(dataset, [size for size in sizes if size is not None]))
    problems += map(Problem.of, dataset.notices)
    return sorted(problems, key=lambda problem: problem.severity != "error")


def missing_classes(dataset: Dataset, sizes: Sequence[Sequence[float]]) -> list[UserError]:
    """Return an error if the labels are all empty, else a notice for each class that none of them holds.

    Args:
        dataset: declares the classes.
        sizes: of each labeled training case, voxels or volume of each class, the background first.
    """
    if not sizes:
        return []
    totals = np.sum(sizes, axis=0).tolist()
    absent = [name for name, total in zip(dataset.class_names, totals, strict=True) if total == 0]
    if not any(totals[1:]):
        found, expected = f"background alone in {len(sizes)} labels", "foreground in one of them at least"
        do = "choose other labeled cases, or correct the label files"
        return [UserError("All labels of the labeled cases are empty", found, expected, do, dataset.root)]
    what, expected = "A class is in none of the training labels", "some voxels of every declared class"
    do = "label cases that show it, or correct the labels in dataset.json; no method can learn it"
    return [
        Notice(what, f"no voxel of {name} in {len(sizes)} labels", expected, do, dataset.root)
        for name in absent
    ]


def _duplicates(reports: Sequence[CaseReport], role: Mapping[str, str]) -> Iterator[Problem]:
    images: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    labels: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for report in reports:
        name, files = report.case.name, report.case.images
        for index, digest in report.digests.items():
            images[digest].append((name, files[min(index, len(files) - 1)]))
        if report.label_digest is not None and report.case.label is not None:
            labels[report.label_digest].append((name, report.case.label))
    for places in filter(lambda places: len(places) > 1, images.values()):
        names = list(dict.fromkeys(name for name, _ in places))
        seen = [role[name] for name in names]
        held_out = sorted({item for item in seen if item in _HELD_OUT})
        what, do = "The same image occurs more than once", "keep one of the files"
        if len(names) == 1:
            what, do = "Two channels of a case hold the same image", "replace one of the files"
        elif held_out and len(set(seen)) > 1:
            what = f"A scan of the {' and '.join(held_out)} cases is also used otherwise"
            do = "remove it from one of the sides: its score would mean nothing"
        severe = len(names) == 1 or (bool(held_out) and len(set(seen)) > 1)
        found = shortened((f"{name} ({role[name]}, {path.name})" for name, path in places), 8)
        expected = "every scan once; compared by content, whatever axes, type and compression"
        severity: Severity = "error" if severe else "warning"
        yield Problem(severity, what, names[0], str(places[0][1]), found, expected, do)
    for places in filter(lambda places: len(places) > 1, labels.values()):
        what, expected = "The same label occurs more than once", "a label of its own for every scan"
        found = shortened((f"{name} ({path.name})" for name, path in places), 8)
        do = "look at these cases; one of the labels may belong to another scan"
        yield Problem("warning", what, places[0][0], str(places[0][1]), found, expected, do)


def _unusual_intensities(reports: Sequence[CaseReport], channels: Sequence[str]) -> Iterator[Problem]:
    """Compare width and position of each scan's values with the median over the cases."""
    for index, channel in enumerate(channels):
        known = [report for report in reports if index in report.levels]
        widths = [report.levels[index].high - report.levels[index].low for report in known]
        known = [report for report, width in zip(known, widths, strict=True) if width > 0]
        widths = [width for width in widths if width > 0]
        if len(known) < _FEWEST:
            continue
        usual = float(np.median(widths))
        centre = float(np.median([report.levels[index].middle for report in known]))
        far = _outliers([float(np.log(width)) for width in widths], float(np.log(_FACTOR)))
        off = _outliers([report.levels[index].middle for report in known], usual / 2)
        for report, is_far, is_off in zip(known, far, off, strict=True):
            if not (is_far or is_off):
                continue
            level, files = report.levels[index], report.case.images
            what, path = (
                "The intensities differ from those of the other scans",
                files[min(index, len(files) - 1)],
            )
            found = f"{channel}: {level.low:g} to {level.high:g}, median {level.middle:g}"
            expected = f"a range about {usual:g} wide, as usual here (median {centre:g})"
            do = "look at the scan: another modality, unit or scaling? harmless if every scan is normalised"
            do += " by its own mean (zscore), not with ct or none"
            yield Problem("warning", what, report.case.name, str(path), found, expected, do)


def _outliers(values: Sequence[float], least: float) -> list[bool]:
    """Find values further than `_DEVIATIONS` robust standard deviations and `least` from the median."""
    distance = np.abs(np.asarray(values) - np.median(values))
    limit = max(_DEVIATIONS * 1.4826 * float(np.median(distance)), least)
    return [bool(item) for item in distance > limit]


def _unusual_spacings(reports: Sequence[CaseReport]) -> Iterator[Problem]:
    known = [(report, report.spacing_mm) for report in reports if report.spacing_mm is not None]
    if len(known) < _FEWEST:
        return
    usual = np.median([spacing for _, spacing in known], axis=0)
    for report, spacing in known:
        ratio = np.maximum(spacing / usual, usual / spacing)
        if ratio.max() > _SPACING_FACTOR:
            what = "The voxel size differs much from that of the other scans"
            found, expected = (
                " x ".join(f"{side:g}" for side in sides) + " mm" for sides in (spacing, usual)
            )
            expected += f", within a factor of {_SPACING_FACTOR:g}"
            do = "check the header; if it is right, much detail is lost or invented when resampling"
            yield Problem("warning", what, report.case.name, str(report.case.images[0]), found, expected, do)


def grouped(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Put problems of one kind together, in the order of their first ones."""
    kinds: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.severity, problem.what].append(problem)
    return list(kinds.values())
