"""Which grid a network works on, and how much of a scan a patch holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semivox.io.geometry import Triple
from semivox.preprocessing.averaging import FACTORS
from semivox.preprocessing.fingerprint import Fingerprint
from semivox.preprocessing.plan import HALVINGS, SIDE, Spacing

Sides = Sequence[float] | NDArray[np.float64]  # along the three axes

FIDELITY, FINE = 0.975, 0.99  # Dice that classes have to keep; where that takes a small patch
# Features of a small patch: a step of the default method takes a third of a second on one core. With 8 labels
# of the left atrium in slices of 5 mm, 0.99 was better than 0.975 by 0.009 (docs/results/default.md).
SMALL_VOXELS = 48_000
_WHOLE = 0.9  # of the median scan, which a small patch holds
GPU_VOXELS, CPU_VOXELS = 128 * 128 * 96, 64 * 64 * 64  # of features in a patch
# Of training with `dual` (two networks of width 16), 2 + 2 patches a step, 32 bit: measured on a CPU as the
# peak memory of patches from 32^3 to 64 x 64 x 48.
_BYTES_PER_VOXEL, _FIXED_BYTES = 10_000, 1_000_000_000
_ROUNDED = 0.25  # of a block of voxels that a patch may lack of the median scan
_DEEPEST, _DEEP_SIDE = 4, 48  # halvings of patches whose features have such a longest side; 3 of others
_LEAST = 8  # features along an axis that is halved
_ENOUGH = 32  # features along the longest axis of a scan: fewer would hardly save any time
_DOUBLE = 1.9  # times the source's voxel: from here on features merge two voxels of a finer grid
_CHEAP = 1.15  # times the voxels, for sides that every network can take


class GridRow(NamedTuple):
    """One grid of features that was compared."""

    spacing_mm: Spacing  # distance between features
    stem: Triple  # voxels of the working grid that a feature merges along each axis
    voxels: Triple  # features along each axis of a scan of median size
    fidelity: dict[str, float]  # of each class, the median over labeled cases
    patch: Triple  # in voxels of the working grid
    share: float  # of the median scan that the patch holds, 0..1

    def as_dict(self, *, chosen: bool) -> dict[str, Any]:
        """Return plain data, lists and numbers of three digits."""
        items = self._asdict().items()
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in items}
        rounded = {name: round(value, 3) for name, value in self.fidelity.items()}
        return plain | {"fidelity": rounded, "share": round(self.share, 3), "chosen": chosen}


def compare_grids(
    measured: Fingerprint, shapes_mm: NDArray[np.float64], limit: int, wanted: float | None = None
) -> tuple[list[GridRow], int, float]:
    """Compare grids of features, fine to coarse; the coarsest that keeps every class is the best.

    A class counts with its median over the labeled cases that hold it. The sides of the voxels are the
    medians of the scans', and at least f times the smallest of them: thick slices stay as they are until
    the pixels are as large. The longest axis of a scan keeps 32 features.

    Args:
        measured: the scans.
        shapes_mm: extent of each (cropped) scan, (cases, 3).
        limit: features that a patch may have.
        wanted: Dice that each class has to keep; None: `FINE` if a small patch holds the
            median scan then, else `FIDELITY`.

    Returns:
        The grids, none where no labeled case has any foreground; index of the best; the Dice that decided.
    """
    source = median_spacing(measured)
    curves = [(min(case.spacing_mm), case.fidelity) for case in measured.cases if case.fidelity]
    names = list(dict.fromkeys(name for _, fidelity in curves for name in fidelity))
    if not names:
        return [], 0, wanted or FIDELITY
    rows: list[GridRow] = []
    for factor in FACTORS:
        finest = factor * min(source)
        x, y, z = (max(side, float(f"{finest:.6g}")) for side in source)
        kept = {}
        for name in names:
            values = [_at(finest, side, fidelity[name]) for side, fidelity in curves if name in fidelity]
            kept[name] = float(np.median(values))
        stem = _triple(1 + (np.divide((x, y, z), source) >= _DOUBLE))
        shapes = shapes_mm / np.array((x, y, z))
        patch, _, share = whole_patch(shapes, (x, y, z), stem, limit)
        rows.append(GridRow((x, y, z), stem, _triple(_median_shape(shapes)), kept, patch, share))
    if wanted is None:
        best = _coarsest(rows, FINE)
        features = np.prod(np.floor_divide(rows[best].patch, rows[best].stem))
        wanted = FINE if features <= SMALL_VOXELS and rows[best].share >= _WHOLE else FIDELITY
    return rows, _coarsest(rows, wanted), wanted


def whole_patch(
    shapes: NDArray[np.float64], spacing: Sides, stem: Triple, limit: int
) -> tuple[Triple, tuple[Triple, ...], float]:
    """Choose a patch that holds the median scan whole, or as much as the limit allows, and the strides.

    Args:
        shapes: features along each axis of the scans, (cases, 3).
        spacing: distance between features.
        stem: voxels that a feature merges.
        limit: features that the patch may have.

    Returns:
        Sides in voxels, multiples of stem x strides, and of 16, where that adds few voxels; the strides; the
        share of the median scan that the patch holds, 0..1.
    """
    sides, fraction = np.median(shapes, axis=0), 1.0
    while True:
        strides = network_strides((fraction * sides).tolist(), spacing)
        steps = np.prod(strides, axis=0)
        features = np.maximum(1, np.ceil(fraction * sides / steps - _ROUNDED)) * steps
        if np.prod(features) <= limit or fraction * max(sides) <= _LEAST:
            break
        fraction *= 0.97
    patch = (features * stem).astype(int)
    common = np.lcm(np.multiply(steps, stem), SIDE)
    every = -(-patch // common) * common
    if np.prod(every) <= _CHEAP * np.prod(patch) and np.prod(every // stem) <= limit:
        patch = every
    share = float(np.prod(np.minimum(1, patch / stem / _median_shape(shapes))))
    return _triple(patch), strides, share


def _median_shape(shapes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1, np.round(np.median(shapes, axis=0)))


def network_strides(sides: Sides, spacing: Sides) -> tuple[Triple, ...]:
    """Choose which axes are halved between the levels of a network.

    An axis is halved while its features are less than twice as far apart (`spacing`) as the finest ones, and
    while a patch has 8 of them along it (`sides`).
    """
    left, gaps = np.asarray(sides, float), np.asarray(spacing, float)
    strides: list[Triple] = []
    for _ in range(_DEEPEST if left.max() > _DEEP_SIDE else _DEEPEST - 1):
        long = left >= _LEAST
        halved = long & (gaps < 2 * gaps[long].min(initial=np.inf) - 1e-6)
        if not halved.any():
            break
        x, y, z = (2 if half else 1 for half in halved)
        strides.append((x, y, z))
        left, gaps = left / strides[-1], gaps * strides[-1]
    return tuple(strides) or ((1, 1, 1),)


def strides_for(patch: Triple, stem: Triple, spacing: Sides) -> tuple[Triple, ...]:
    """Choose the strides for a patch that is given: only as often as its sides can be divided."""
    left, rest = np.divmod(patch, stem)
    if rest.any():
        return HALVINGS  # the plan's check names what does not fit
    strides: list[Triple] = []
    for level in network_strides(left, np.multiply(spacing, stem)):
        strides.append(_triple(np.where(left % level == 0, level, 1)))
        left = left // strides[-1]
    return tuple(strides)


def median_spacing(measured: Fingerprint) -> Spacing:
    """Return the median voxel size along each axis."""
    x, y, z = np.median([case.spacing_mm for case in measured.cases], axis=0)
    return float(f"{x:.6g}"), float(f"{y:.6g}"), float(f"{z:.6g}")


def feature_limit(memory_gb: float | None) -> tuple[int, str]:
    """Return the features that a patch may have on this machine, or in so much memory, and who says so."""
    if memory_gb is not None:
        memory, limit, whose = 1e9 * memory_gb, math.inf, f"{memory_gb:g} GB"
    else:
        import torch

        if not torch.cuda.is_available():
            return CPU_VOXELS, "a CPU"
        memory, limit, whose = torch.cuda.get_device_properties(0).total_memory, GPU_VOXELS, "the GPU"
    return int(min(limit, max(0.0, memory - _FIXED_BYTES) / _BYTES_PER_VOXEL)), whose


def _at(side_mm: float, finest_mm: float, curve: Sequence[float]) -> float:
    """Read the fidelity of one case at a voxel side; 0 beyond what was measured of it."""
    known = np.multiply(FACTORS, finest_mm)
    if side_mm > known[-1] * (1 + 1e-6):
        return 0.0
    return float(np.interp(side_mm, known, curve))


def _triple(values: NDArray[Any]) -> Triple:
    x, y, z = values.astype(int).tolist()
    return x, y, z


def _coarsest(rows: Sequence[GridRow], wanted: float) -> int:
    """Return the last row up to which every class keeps `wanted` and the longest axis enough features."""
    best = 0
    for row in rows[1:]:
        if min(row.fidelity.values()) < wanted or max(row.voxels) < _ENOUGH:
            break
        best += 1
    return best
