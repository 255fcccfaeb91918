"""What the scans of a data set look like, measured without opening a label that was declared unlabeled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semivox.errors import UserError
from semivox.io.extent import Triple, canonical_axes, foreground_box
from semivox.io.parallel import run_jobs
from semivox.io.volume import IGNORE, Volume, read_image, read_label
from semivox.preprocessing.intensity import PERCENTILES, Intensity, sample
from semivox.progress import Progress

if TYPE_CHECKING:
    from semivox.datasets.dataset import Case, Dataset
    from semivox.datasets.splits import Split

Array = npt.NDArray[Any]

_FOREGROUND_SAMPLE = 20_000  # voxels that one labeled case adds to the pooled foreground


@dataclass(frozen=True)
class CaseFingerprint:
    """One scan, its axes put in the order right-left, back-front, down-up (RAS, by permutation only).

    Attributes:
        name: of the case.
        shape: voxels along each axis.
        spacing_mm: voxel size along each axis.
        background: share of voxels, 0..1, that hold the scan's minimum in every channel.
        foreground_shape: voxels along each axis of the box around all others.
        channels: intensities of the whole scan.
        class_volumes_ml: of each foreground class; None for a case without a label.
        foreground: intensities of the labeled foreground; None without a label or without foreground.
    """

    name: str
    shape: Triple
    spacing_mm: tuple[float, float, float]
    background: float
    foreground_shape: Triple
    channels: tuple[Intensity, ...]
    class_volumes_ml: dict[str, float] | None
    foreground: tuple[Intensity, ...] | None


@dataclass(frozen=True)
class Fingerprint:
    """All scans, and the intensities of the labeled foreground pooled over the labeled ones.

    Attributes:
        cases: in the order of the split: labeled, unlabeled, validation.
        foreground: one for each channel, pooled; None when no label has any foreground.
    """

    cases: tuple[CaseFingerprint, ...]
    foreground: tuple[Intensity, ...] | None

    def summary(self) -> dict[str, Any]:
        """Give the ranges over cases as plain data for the plan file."""
        labeled = {c.name: c.class_volumes_ml for c in self.cases if c.class_volumes_ml is not None}
        volumes = list(labeled.values())
        names = list(volumes[0]) if volumes else []
        return {
            "cases": len(self.cases),
            "labeled_cases": list(labeled),
            "shape": _range([case.shape for case in self.cases]),
            "spacing_mm": _range([case.spacing_mm for case in self.cases]),
            "voxels": _range([int(np.prod(case.shape)) for case in self.cases]),
            "background_share": _range([case.background for case in self.cases]),
            "intensity": [intensity.as_dict() for intensity in self.typical_intensity()],
            "class_volumes_ml": {name: _range([volume[name] for volume in volumes]) for name in names},
        }

    def typical_intensity(self) -> tuple[Intensity, ...]:
        """Give each channel's whole-scan intensities, the median over cases of every figure."""
        result = []
        for channel in zip(*(case.channels for case in self.cases), strict=True):
            middle = {key: _median([item.percentiles[key] for item in channel]) for key in PERCENTILES}
            mean, std = _median([item.mean for item in channel]), _median([item.std for item in channel])
            result.append(Intensity(middle, mean, std))
        return tuple(result)


def fingerprint(
    dataset: Dataset,
    split: Split,
    progress: Progress | None = None,
    *,
    workers: int = 0,
    trust_image_geometry: bool = False,
) -> Fingerprint:
    """Measure the images of all training, unlabeled and validation cases, and the labels of labeled ones.

    The label files of unlabeled, validation and test cases are never opened. Percentiles of scans above
    half a million voxels come from a fixed random sample of them.

    Args:
        dataset: the cases.
        split: which of them are measured, and which labels may be opened.
        progress: called after each case with the number done, the number of all, and the case's name.
        workers: processes; 0 works in this one. The result does not depend on it.
        trust_image_geometry: see `read_image`.

    Raises:
        UserError: a file is damaged or holds unusable values; a labeled case has no label file.
    """
    labeled = set(split.labeled)
    jobs = [
        _Job(
            index,
            dataset.channels,
            dataset.class_names,
            dataset.class_values,
            dataset.ignore_value,
            case if case.name in labeled else replace(case, label=None),
            trust_image_geometry,
        )
        for index, case in enumerate(map(dataset.case, (*split.labeled, *split.unlabeled, *split.val)))
    ]
    for job in jobs:
        if job.case.name in labeled and job.case.label is None:
            raise _without_label(job.case)
    found: dict[int, tuple[CaseFingerprint, Array | None]] = {}
    for job, result in run_jobs(
        _measure, jobs, min(workers, len(jobs)), name=lambda job: job.case.name, doing="measuring"
    ):
        found[job.index] = result
        if progress is not None:
            progress(len(found), len(jobs), job.case.name)
    cases = tuple(found[job.index][0] for job in jobs)
    pool = [values for job in jobs if (values := found[job.index][1]) is not None]
    pooled = tuple(Intensity.of(values) for values in np.concatenate(pool, axis=1)) if pool else None
    return Fingerprint(cases, pooled)


@dataclass(frozen=True)
class _Job:
    """What a worker gets; a case whose label may not be opened comes without its path."""

    index: int
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    class_values: tuple[int, ...]
    ignore_value: int | None
    case: Case
    trust: bool


def _measure(job: _Job) -> tuple[CaseFingerprint, Array | None]:
    """Give the case's figures and a (C, N) sample of its labeled foreground."""
    image = read_image(job.case.images, channels=job.channels, trust_image_geometry=job.trust)
    axes, _ = canonical_axes(image.affine)
    start, stop, background = foreground_box(image.array)
    box = tuple(last - first for first, last in zip(start, stop, strict=True))
    volumes, values = (None, None) if job.case.label is None else _measure_label(job, job.case.label, image)
    found = CaseFingerprint(
        name=job.case.name,
        shape=_pick(image.array.shape[1:], axes),
        spacing_mm=_pick(image.spacing_mm, axes),
        background=background,
        foreground_shape=_pick(box, axes),
        channels=tuple(Intensity.of(channel) for channel in image.array),
        class_volumes_ml=volumes,
        foreground=None if values is None else tuple(Intensity.of(channel) for channel in values),
    )
    return found, None if values is None else sample(values, _FOREGROUND_SAMPLE)


def _measure_label(job: _Job, path: Path, image: Volume) -> tuple[dict[str, float], Array | None]:
    read = read_label(path, job.class_values, image, job.ignore_value, trust_image_geometry=job.trust)
    label = read.array
    voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    names = enumerate(job.class_names[1:], start=1)
    volumes = {name: int(np.count_nonzero(label == index)) * voxel_ml for index, name in names}
    inside = (label > 0) & (label != IGNORE)
    return volumes, image.array[:, inside] if inside.any() else None


def _without_label(case: Case) -> UserError:
    return UserError(
        f"The labeled case {case.name} has no label file",
        found="no label file",
        expected="one for every case that the split calls labeled",
        do="add the file, or correct the split",
    )


def _pick(values: Sequence[Any], axes: Triple) -> tuple[Any, Any, Any]:
    return values[axes[0]], values[axes[1]], values[axes[2]]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _range(values: Sequence[Any]) -> dict[str, Any]:
    array = np.asarray(values)
    return {
        name: f(array, axis=0).tolist()
        for name, f in (("min", np.min), ("median", np.median), ("max", np.max))
    }
