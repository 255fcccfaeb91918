"""Between a scan's own voxel grid and the working grid, in both directions.

The working grid has the scan's axes permuted and flipped to be closest to RAS (nothing is rotated, an
oblique scan stays oblique), is cropped if the plan says so, and has the plan's voxel size. Resampling goes
from edge to edge: the outer faces of the first and last voxels stay where they are, so that the actual
voxel size differs from the planned one by the rounding of the shape.

Importing this module does not import torch: only the workers that resample need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from semivox.io.formats import BadFileError
from semivox.io.geometry import Triple, canonical_axes, foreground_box
from semivox.io.reader import check_memory
from semivox.io.volume import IGNORE, Volume
from semivox.preprocessing.averaging import average
from semivox.preprocessing.fingerprint import moments

if TYPE_CHECKING:
    import torch

    from semivox.preprocessing.plan import Plan

Array = npt.NDArray[Any]

_SAME_SPACING = 1e-3  # relative; closer than this counts as equal and is not resampled
_COPY_BYTES = 4  # a voxel of the copy that resampling makes
_TIE = 1e-6  # rounding of the interpolation, which must not decide between classes


@dataclass(frozen=True, eq=False)
class Grid:
    """One scan's way to the working grid and back."""

    source_shape: Triple  # (X, Y, Z) of the scan
    source_affine: Array  # (4, 4), its voxel to world mm
    axes: Triple  # the source axis that becomes each canonical axis
    flips: tuple[bool, bool, bool]  # whether that axis runs the other way
    start: Triple  # first voxel of the crop on the canonical grid
    stop: Triple  # its end, exclusive
    shape: Triple  # (X, Y, Z) of the working grid, which covers the crop exactly

    @property
    def crop_shape(self) -> Triple:
        """Size of the crop in source voxels, canonical order."""
        x, y, z = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return x, y, z

    def cropped(self, array: Array) -> Array:
        """Return a view of (..., *source_shape), permuted, flipped and cropped; a write goes through."""
        if array.shape[-3:] != self.source_shape:
            raise ValueError(f"shape {array.shape} is not the source's {self.source_shape}")
        lead = array.ndim - 3
        flip: list[Any] = [slice(None, None, -1 if flip else 1) for flip in self.flips]
        box: list[Any] = [slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True)]
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return turned[(..., *flip)][(..., *box)]

    def affine(self) -> Array:
        """Return the (4, 4) from voxel indices of the working grid to world mm."""
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1.0
        for axis, source in enumerate(self.axes):
            step = self.crop_shape[axis] / self.shape[axis]
            first = self.start[axis] + (step - 1) / 2
            if self.flips[axis]:
                step, first = -step, self.source_shape[source] - 1 - first
            to_source[source, axis], to_source[source, 3] = step, first
        return np.asarray(self.source_affine @ to_source)

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, for `from_dict`."""
        return {**asdict(self), "source_affine": self.source_affine.tolist()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Grid:
        """Rebuild a grid from `as_dict`."""
        plain: dict[str, Any] = {key: tuple(value) for key, value in values.items()}
        plain["source_affine"] = np.array(values["source_affine"], np.float64)
        return Grid(**plain)


def to_working_grid(image: Volume, plan: Plan, path: Path | None = None) -> tuple[Array, Grid]:
    """Bring a scan, with the plan's channels (C, X, Y, Z), to the working grid.

    It is permuted and flipped, cropped, normalised and resampled. Returned are a copy, (C, X, Y, Z) float32,
    and the way back; messages name `path`.

    Raises:
        UserError: a working grid that memory cannot hold; a scan smaller than a voxel of it, as with metres
            taken for millimetres.
    """
    grid = _working_grid(image, plan)
    _check_extent(image, plan, path)
    check_memory((len(image.array), *grid.shape), _COPY_BYTES, path)
    source = grid.cropped(image.array)
    array = np.empty((len(source), *grid.shape), np.float32)
    how = zip(plan.normalisation, plan.intensity, strict=True)
    for out, channel, (normalisation, figures) in zip(array, source, how, strict=True):
        values = np.array(channel, np.float32, order="C")
        normalise(values, normalisation, figures)
        out[...] = resample(values, grid.shape)
    return array, grid


def _check_extent(image: Volume, plan: Plan, path: Path | None) -> None:
    extent_mm = np.multiply(image.array.shape[1:], image.spacing_mm)
    if extent_mm.max() < min(plan.spacing_mm):
        sides, wanted = (" x ".join(f"{side:g}" for side in mm) for mm in (extent_mm, plan.spacing_mm))
        do = "check the voxel size and the unit in its header; lengths are in mm unless it says otherwise"
        what, expected = "The scan is smaller than a voxel of the working grid", f"more than {wanted} mm"
        raise BadFileError(what, f"{sides} mm", expected, do, path)


def normalise(values: Array, how: str, intensity: Mapping[str, float]) -> None:
    """Normalise one channel, (X, Y, Z) float32, in place; a constant one becomes 0, except with "none".

    "none" changes nothing; "zscore" brings mean and standard deviation to 0 and 1; "zscore_nonzero" does so
    for the voxels other than 0, which stay 0; "ct" takes figures from `intensity`: it clips to `p005` and
    `p995`, subtracts `mean` and divides by `std`.
    """
    if how == "none":
        return
    if how == "ct":
        np.clip(values, intensity["p005"], intensity["p995"], out=values)
        mean, std = intensity["mean"], intensity["std"]
    else:
        chosen = values[values != 0] if how == "zscore_nonzero" else values
        mean, std = moments(chosen)
    outside = values == 0 if how == "zscore_nonzero" else None
    values -= np.float32(mean)
    values /= np.float32(std if std > 1e-6 * abs(mean) else 1.0)
    if outside is not None:
        values[outside] = 0


def label_to_working_grid(label: Array, grid: Grid) -> Array:
    """Bring class indices (*source_shape) to the working grid: linear shares of each class, largest wins.

    Ties go to the lower class index. One class at a time is held in floating point.
    """
    source = grid.cropped(label)
    if grid.shape == source.shape:
        return np.array(source, np.uint8, order="C")
    shares = (
        (index, resample((source == index).astype(np.float32), grid.shape)) for index in np.unique(source)
    )
    return _winners(shares, margin=_TIE)


def label_shares(label: Array, grid: Grid, num_classes: int) -> Array:
    """Average a label to the working grid: each voxel's share of each foreground class.

    Voxels to ignore do not count: the others of a working voxel share it among themselves.

    Returns:
        (K - 1, X, Y, Z) uint8 for K `num_classes`, background included; 255 is a whole voxel.
    """
    source = grid.cropped(label)
    unknown = source == IGNORE
    scale: Array | float = 255.0
    if unknown.any():
        scale = 255 / np.maximum(1 - average(unknown.astype(np.float32), grid.shape), _TIE)
    shares = np.empty((num_classes - 1, *grid.shape), np.uint8)
    for index, share in enumerate(shares, start=1):
        mean = average((source == index).astype(np.float32), grid.shape)
        share[...] = np.minimum(np.round(mean * scale), 255)
    return shares


def label_to_source(probs: Array | torch.Tensor, grid: Grid) -> Array:
    """Return the most probable class, (*source_shape) uint8, of (C, X, Y, Z) on the working grid.

    Equals the argmax of `probs_to_source`, but only the best class so far is held in memory.
    """
    maps = ((index, resample(_plain(channel), grid.crop_shape)) for index, channel in enumerate(probs))
    label = np.zeros(grid.source_shape, np.uint8)
    grid.cropped(label)[...] = _winners(maps)
    return label


def probs_to_source(probs: Array | torch.Tensor, grid: Grid) -> Array:
    """Bring probabilities (C, X, Y, Z) to the scan's grid, (C, *source_shape) float32.

    Outside the crop the background, channel 0, has 1.
    """
    result = np.empty((len(probs), *grid.source_shape), np.float32)
    for index, channel in enumerate(probs):
        result[index] = map_to_source(channel, grid, outside=float(index == 0))
    return result


def map_to_source(values: Array | torch.Tensor, grid: Grid, *, outside: float = 0.0) -> Array:
    """Bring one map (X, Y, Z), e.g. an uncertainty, to the scan's grid, with `outside` around the crop."""
    result = np.full(grid.source_shape, outside, np.float32)
    grid.cropped(result)[...] = resample(_plain(values), grid.crop_shape)
    return result


def resample(values: Array, shape: Triple) -> Array:
    """Resample (X, Y, Z) float32 from edge to edge, linearly; the same array if the shape is the same.

    An axis that gets coarser by a factor f is smoothed before by a Gaussian of (f - 1) / 2 voxels: with the
    blur that linear interpolation adds between two voxels, this is close to the new voxel's width at half
    maximum (for f = 2 together 0.71 voxels, against sqrt(f^2 - 1) / 2.355 = 0.74), not beyond it.
    """
    if values.shape == tuple(shape):
        return values
    import torch

    for axis, (old, new) in enumerate(zip(values.shape, shape, strict=True)):
        if old > new:
            values = gaussian_filter1d(values, (old / new - 1) / 2, axis=axis, mode="nearest")
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    resized = torch.nn.functional.interpolate(
        tensor, size=tuple(shape), mode="trilinear", align_corners=False
    )
    return np.asarray(resized[0, 0].numpy())


def _working_grid(image: Volume, plan: Plan) -> Grid:
    axes, flips = canonical_axes(image.affine)
    first, last = (0, 0, 0), image.array.shape[1:]
    if plan.crop == "foreground":
        first, last, _ = foreground_box(image.array)
    order = list(axes)
    size, low, high = (np.array(sides)[order] for sides in (image.array.shape[1:], first, last))
    start, stop = np.where(flips, size - high, low), np.where(flips, size - low, high)
    ratio, sides = np.array(image.spacing_mm)[order] / plan.spacing_mm, stop - start
    resampled = np.maximum(1, np.rint(sides * ratio)).astype(int)
    shape = np.where(np.abs(ratio - 1) > _SAME_SPACING, resampled, sides)
    source = image.array.shape[1:], np.array(image.affine, np.float64)
    return Grid(*source, axes, flips, *(tuple(ends.tolist()) for ends in (start, stop, shape)))


def _winners(maps: Iterable[tuple[int, Array]], margin: float = 0.0) -> Array:
    """Return the index of the highest map, voxel by voxel; a later one has to exceed by `margin`."""
    iterator = iter(maps)
    first, highest = next(iterator)
    highest = highest.copy()
    winner = np.full(highest.shape, first, np.uint8)
    for index, values in iterator:
        winner[values > highest + margin] = index
        np.maximum(highest, values, out=highest)
    return winner


def _plain(values: Array | torch.Tensor) -> Array:
    if not isinstance(values, np.ndarray):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, np.float32)
