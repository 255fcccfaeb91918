"""What the scans of a data set look like, measured without opening a label that was declared unlabeled."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from semivox.io.geometry import Triple, canonical_axes, foreground_box
from semivox.io.reader import run_jobs
from semivox.io.volume import IGNORE, Volume, read_image, read_label
from semivox.preprocessing.averaging import fidelity, largest_share
from semivox.preprocessing.sources import sources_of, visible_cases
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
        shares = [case.pieces or {} for case in self.cases]
        least = (min((share[name] for share in shares if name in share), default=0.0) for name in names)
        return tuple(share >= _ONE_PIECE for share in least)

    def summary(self) -> dict[str, Any]:
        """Return the ranges over cases as plain data for the plan file."""
        volumes = list(self.volumes_ml.values())
        names = volumes[0] if volumes else ()
        return {
            "cases": len(self.cases),
            "labeled_cases": list(self.volumes_ml),
            "shape": _range([case.shape for case in self.cases]),
            "spacing_mm": _range([case.spacing_mm for case in self.cases]),
            "voxels": _range([int(np.prod(case.shape)) for case in self.cases]),
            "background_share": _range([case.background for case in self.cases]),
            "intensity": self.typical_intensity(),
            "class_volumes_ml": {name: _range([one[name] for one in volumes]) for name in names},
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
    cases = visible_cases(dataset, (*split.labeled, *split.unlabeled, *split.val), split.labeled)
    evenly = np.linspace(0, len(split.labeled) - 1, min(len(split.labeled), _MOST_MEASURED))
    tried = {split.labeled[round(index)] for index in evenly}
    described, trust = replace(dataset, cases=()), trust_image_geometry
    measure = partial(_measure, dataset=described, trust=trust, tried=tried)
    found: dict[str, Any] = dict.fromkeys(case.name for case in cases)  # in the order of the split
    results = run_jobs(measure, cases, workers, name=lambda case: case.name, doing="measuring")
    for done, (case, result) in enumerate(results, start=1):
        found[case.name] = result
        if progress is not None:
            progress(done, len(cases), case.name)
    measured, inside, sources = zip(*found.values(), strict=True)
    pooled = _intensities(np.concatenate(inside, axis=1))
    return Fingerprint(measured, pooled, dict(zip(found, sources, strict=True)))


def _measure(
    case: Case, dataset: Dataset, trust: bool, tried: Container[str]
) -> tuple[CaseFingerprint, Array, dict[str, Any]]:
    """Measure one case; return also a sample of its labeled foreground, (C, N), and its sources.

    A case whose label may not be opened comes without its path, and the data set without its cases.
    Coarser grids are `tried` on the label of some cases.
    """
    sources = sources_of(case)  # before reading: a change meanwhile shows the next time
    image = read_image(case.images, channels=dataset.channels, trust_image_geometry=trust)
    axes, _ = canonical_axes(image.affine)
    start, stop, background = foreground_box(image.array)
    found = CaseFingerprint(
        name=case.name,
        shape=_pick(image.array.shape[1:], axes),
        spacing_mm=_pick(image.spacing_mm, axes),
        background=background,
        foreground_shape=_pick(np.subtract(stop, start).tolist(), axes),
        channels=tuple(map(intensity, image.array)),
    )
    if case.label is None:
        return found, np.empty((len(image.array), 0), np.float32), sources
    values, ignore = dataset.class_values, dataset.ignore_value
    label = read_label(case.label, values, image, ignore, trust_image_geometry=trust).array
    inside = image.array[:, (label > 0) & (label != IGNORE)]
    classes = _measure_classes(label, dataset.class_names[1:], image, try_grids=case.name in tried)
    found = replace(found, foreground=_intensities(inside), **classes)
    return found, _sample(inside, _FOREGROUND_SAMPLE), sources


def _measure_classes(label: Array, names: Sequence[str], image: Volume, *, try_grids: bool) -> dict[str, Any]:
    """Return what the fingerprint says of the foreground classes."""
    voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    counts = np.bincount(label.ravel(), minlength=IGNORE + 1)
    boxes = ndimage.find_objects(np.where(label == IGNORE, 0, label))
    kept, pieces = dict[str, list[float]](), dict[str, float]()
    for index, name in enumerate(names, start=1):
        if counts[index]:
            mask = label[boxes[index - 1]] == index
            pieces[name] = largest_share(mask)
            if try_grids:
                kept[name] = fidelity(mask, image.spacing_mm)
    volumes = {name: int(count) * voxel_ml for name, count in zip(names, counts[1:], strict=False)}
    return {"class_volumes_ml": volumes, "fidelity": kept or None, "pieces": pieces or None}


def _intensities(values: Array) -> tuple[Intensity, ...] | None:
    """Describe the channels of (C, N) values; None where there are none."""
    return tuple(map(intensity, values)) if values.size else None


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
    mean, squares = float(flat.mean(dtype=np.float64)), 0.0
    for first in range(0, flat.size, _CHUNK):
        part = flat[first : first + _CHUNK].astype(np.float64) - mean
        squares += float(part @ part)
    return mean, float(np.sqrt(squares / flat.size))


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
