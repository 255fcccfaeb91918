"""What the scans of a data set look like, measured without opening a label that was declared unlabeled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from semivox.errors import UserError
from semivox.files import signature
from semivox.io.geometry import Triple, canonical_axes, foreground_box
from semivox.io.reader import run_jobs
from semivox.io.volume import IGNORE, Volume, read_image, read_label
from semivox.preprocessing.averaging import fidelity, largest_share
from semivox.progress import Progress

if TYPE_CHECKING:
    from semivox.datasets.dataset import Case, Dataset
    from semivox.datasets.splits import Split

Array = npt.NDArray[Any]

PERCENTILES = {"p005": 0.5, "p050": 5.0, "p500": 50.0, "p950": 95.0, "p995": 99.5}
Intensity = dict[str, float]  # of a channel: `mean`, `std` of the population, value at each of `PERCENTILES`
_SAMPLE = 500_000  # voxels that percentiles of a large scan are taken from
_FOREGROUND_SAMPLE = 20_000  # voxels that one labeled case adds to the pooled foreground
_MOST_MEASURED = 24  # labeled cases that coarser grids are tried on
_ONE_PIECE = 0.99  # of a structure's voxels: the rest are specks
_CHUNK = 1 << 20


@dataclass(frozen=True)
class CaseFingerprint:
    """One scan, its axes put in the order right-left, back-front, down-up (RAS, by permutation only)."""

    name: str
    shape: Triple  # voxels
    spacing_mm: tuple[float, float, float]
    background: float  # share of voxels, 0..1, that hold the scan's minimum in every channel
    foreground_shape: Triple  # voxels of the box around all others
    channels: tuple[Intensity, ...]  # over the whole scan
    class_volumes_ml: dict[str, float] | None = None  # of each foreground class; None without a label
    foreground: tuple[Intensity, ...] | None = None  # of the labeled foreground, where there is any
    fidelity: dict[str, list[float]] | None = None  # of each class, see `averaging.fidelity`
    pieces: dict[str, float] | None = None  # of each class, the share in its largest connected piece


@dataclass(frozen=True)
class Fingerprint:
    """All scans, and the intensities of the labeled foreground pooled over the labeled ones."""

    cases: tuple[CaseFingerprint, ...]  # in the order of the split: labeled, unlabeled, validation
    foreground: tuple[Intensity, ...] | None  # of each channel; None when no label has any foreground
    sources: dict[str, Any] = field(default_factory=dict)  # what was measured, see `sources_of`

    @property
    def background(self) -> float:
        """The share of background voxels in a typical scan, 0..1."""
        return _median(case.background for case in self.cases)

    @property
    def volumes_ml(self) -> dict[str, dict[str, float]]:
        """The volumes of the foreground classes in each labeled case."""
        return {case.name: case.class_volumes_ml for case in self.cases if case.class_volumes_ml is not None}

    def one_piece(self, names: Sequence[str]) -> tuple[bool, ...]:
        """Return for each class whether it is one connected piece in every labeled case that holds it."""
        shares = [case.pieces for case in self.cases if case.pieces]
        found = {name: [share[name] for share in shares if name in share] for name in names}
        return tuple(bool(values) and min(values) >= _ONE_PIECE for values in found.values())

    def summary(self) -> dict[str, Any]:
        """Return the ranges over cases as plain data for the plan file."""
        volumes = list(self.volumes_ml.values())
        return {
            "cases": len(self.cases),
            "labeled_cases": list(self.volumes_ml),
            "shape": _range([case.shape for case in self.cases]),
            "spacing_mm": _range([case.spacing_mm for case in self.cases]),
            "voxels": _range([int(np.prod(case.shape)) for case in self.cases]),
            "background_share": _range([case.background for case in self.cases]),
            "intensity": self.typical_intensity(),
            "class_volumes_ml": {
                name: _range([volume[name] for volume in volumes]) for name in (volumes or [{}])[0]
            },
        }

    def typical_intensity(self) -> list[Intensity]:
        """Return each channel's whole-scan intensities, the median over cases of every figure."""
        channels = zip(*(case.channels for case in self.cases), strict=True)
        return [{key: _median(one[key] for one in channel) for key in channel[0]} for channel in channels]


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
    half a million voxels come from a fixed random sample of them. The result does not depend on `workers`.

    Raises:
        UserError: files are damaged or hold unusable values; a labeled case has no label file.
    """
    described, count = replace(dataset, cases=()), len(split.labeled)
    evenly = np.linspace(0, count - 1, min(count, _MOST_MEASURED))
    tried = {split.labeled[round(index)] for index in evenly}
    names = (*split.labeled, *split.unlabeled, *split.val)
    shown = visible_cases(dataset, names, split.labeled)
    jobs = [_Job(case, described, trust_image_geometry, case.name in tried) for case in shown]
    found: dict[str, Any] = dict.fromkeys(job.case.name for job in jobs)  # in the order of the split
    results = run_jobs(_measure, jobs, workers, name=lambda job: job.case.name, doing="measuring")
    for done, (job, result) in enumerate(results, start=1):
        found[job.case.name] = result
        if progress is not None:
            progress(done, len(jobs), job.case.name)
    pool = [values for _, values, _ in found.values() if values is not None]
    pooled = tuple(intensity(values) for values in np.concatenate(pool, axis=1)) if pool else None
    sources = {name: sources for name, (_, _, sources) in found.items()}
    return Fingerprint(tuple(case for case, _, _ in found.values()), pooled, sources)


def visible_cases(dataset: Dataset, names: Sequence[str], labeled: Sequence[str]) -> list[Case]:
    """Return the named cases without the path of the label, except for those that are `labeled`.

    Raises:
        UserError: a labeled case has no label file.
    """
    for case in map(dataset.case, labeled):
        if case.label is None:
            what, do = f"The labeled case {case.name} has no label file", "add it, or correct the split"
            raise UserError(what, None, "one for every labeled and validation case", do)
    cases, shown = map(dataset.case, names), set(labeled)
    return [case if case.name in shown else replace(case, label=None) for case in cases]


def sources_of(case: Case, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the signatures of a case's files, {"image": [...], "label": ... or None}.

    Files that have the same size and time as in `known`, earlier signatures, are not read again.
    """
    marks, label = iter((known or {}).get("image", ())), (known or {}).get("label")
    return {
        "image": [signature(path, next(marks, None)) for path in case.images],
        "label": None if case.label is None else signature(case.label, label),
    }


def hashes(case: Case, sources: Mapping[str, Any]) -> dict[Path, str]:
    """Return the content hash of each of a case's files for which `sources` have a signature."""
    pairs = zip((*case.images, case.label), (*sources["image"], sources["label"]), strict=False)
    return {path: mark[-1] for path, mark in pairs if path is not None and mark is not None}


def intensity(values: Array) -> Intensity:
    """Describe any number of values; percentiles of more than half a million come from a fixed sample."""
    flat = values.reshape(1, -1)
    mean, std = moments(flat)
    levels = np.percentile(_sample(flat, _SAMPLE), list(PERCENTILES.values())).tolist()
    return {"mean": mean, "std": std, **dict(zip(PERCENTILES, levels, strict=True))}


def moments(values: Array) -> tuple[float, float]:
    """Return mean and population standard deviation, summed in float64 without a copy of the whole array.

    Both are 0 for empty input.
    """
    flat = values.reshape(-1)
    if flat.size == 0:
        return 0.0, 0.0
    mean = float(flat.mean(dtype=np.float64))
    squares = 0.0
    for first in range(0, flat.size, _CHUNK):
        part = flat[first : first + _CHUNK].astype(np.float64) - mean
        squares += float(part @ part)
    return mean, float(np.sqrt(squares / flat.size))


class _Job(NamedTuple):
    """What a worker gets; a case whose label may not be opened comes without its path."""

    case: Case
    dataset: Dataset  # without its cases
    trust: bool
    try_grids: bool


def _measure(job: _Job) -> tuple[CaseFingerprint, Array | None, dict[str, Any]]:
    """Measure one case; return also a sample of its labeled foreground, and its sources."""
    sources = sources_of(job.case)  # before reading: a change meanwhile shows the next time
    image = read_image(job.case.images, channels=job.dataset.channels, trust_image_geometry=job.trust)
    axes, _ = canonical_axes(image.affine)
    start, stop, background = foreground_box(image.array)
    of_label, values = ({}, None) if job.case.label is None else _measure_label(job, job.case.label, image)
    found = CaseFingerprint(
        name=job.case.name,
        shape=_pick(image.array.shape[1:], axes),
        spacing_mm=_pick(image.spacing_mm, axes),
        background=background,
        foreground_shape=_pick(np.subtract(stop, start).tolist(), axes),
        channels=tuple(intensity(channel) for channel in image.array),
        foreground=None if values is None else tuple(intensity(channel) for channel in values),
        **of_label,
    )
    return found, None if values is None else _sample(values, _FOREGROUND_SAMPLE), sources


def _measure_label(job: _Job, path: Path, image: Volume) -> tuple[dict[str, Any], Array | None]:
    """Return what the fingerprint says of a label, and the (C, N) image values of its foreground."""
    dataset = job.dataset
    read = read_label(path, dataset.class_values, image, dataset.ignore_value, trust_image_geometry=job.trust)
    label, voxel_ml = read.array, abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    boxes = ndimage.find_objects(np.where(label == IGNORE, 0, label))
    volumes, kept, pieces = dict[str, float](), dict[str, list[float]](), dict[str, float]()
    for index, name in enumerate(dataset.class_names[1:], start=1):
        volumes[name] = int(counts[index]) * voxel_ml
        if counts[index]:
            mask = label[boxes[index - 1]] == index
            pieces[name] = largest_share(mask)
            if job.try_grids:
                kept[name] = fidelity(mask, image.spacing_mm)
    inside = (label > 0) & (label != IGNORE)
    found = {"class_volumes_ml": volumes, "fidelity": kept or None, "pieces": pieces or None}
    return found, image.array[:, inside] if inside.any() else None


def _sample(values: Array, limit: int) -> Array:
    """Take at most `limit` columns of (C, N), always the same ones."""
    count = values.shape[1]
    return values if count <= limit else values[:, np.random.default_rng(0).integers(count, size=limit)]


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def _pick(values: Sequence[Any], axes: Triple) -> tuple[Any, Any, Any]:
    return values[axes[0]], values[axes[1]], values[axes[2]]


def _range(values: Sequence[Any]) -> dict[str, Any]:
    return {name: getattr(np, name)(values, axis=0).tolist() for name in ("min", "median", "max")}
