"""Files of scans and labels to arrays, NIfTI back; every broken file becomes a message that names it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from semivox.errors import UserError
from semivox.files import replacing
from semivox.io.formats import Array, bad_file, check_affine, other_reader, unreadable
from semivox.io.geometry import check_grid
from semivox.io.nifti import open_header, open_nifti

_DAMAGE = (OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error)
_UNREADABLE = (*_DAMAGE, ImageFileError, HeaderDataError, WrapStructError)
IGNORE = 255  # class index of voxels that are not annotated
_UNKNOWN = 255  # marks voxels whose value is no class; hence at most 255 classes, 254 beside an ignore value
_LABEL_TYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan or a label map, with its place in the world.

    Attributes:
        array: image (C, X, Y, Z) float32, or label (X, Y, Z) uint8 class indices; C-contiguous.
        affine: (4, 4) float64, voxel indices to world mm (RAS+).
    """

    array: Array
    affine: Array

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighboring voxel centers along X, Y, Z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z


def read_image(
    paths: Sequence[Path],
    channels: int | Sequence[str] | None = None,
    *,
    trust_image_geometry: bool = False,
) -> Volume:
    """Read one scan: one 3D file a channel, or one file, 3D or 4D with the channels on its last axis.

    Args:
        paths: the files, in the order of the channels.
        channels: how many channels there have to be, or their names; None: any number.
        trust_image_geometry: take the first file's affine for all channels of its shape.

    Raises:
        UserError: a file is missing, damaged, not NIfTI, empty or not 3D; NaN or infinite values;
            channels on different grids; another number of channels than `channels`.
    """
    first, affine = read_voxels(paths[0], as_float=True)
    in_one_file = len(paths) == 1 and first.ndim == 4
    count = first.shape[3] if in_one_file else len(paths)
    _check_channels(count, channels, paths)
    parts = np.moveaxis(first, -1, 0) if in_one_file else first[np.newaxis]
    _check_3d(parts[0], paths[0])
    array = np.empty((count, *parts[0].shape), np.float32)
    for index, part in enumerate(parts):
        _fill(array[index], part)
    _check_finite(array[: len(parts)], paths[0])
    for index, path in enumerate(paths[1:], start=1):
        part, part_affine = read_voxels(path, as_float=True)
        other = f"channel {paths[0].name}"
        check_grid(path, part.shape, part_affine, first.shape, affine, other, trust=trust_image_geometry)
        _check_finite(part, path)
        _fill(array[index], part)
    return Volume(array, affine)


def read_label(
    path: Path,
    values: Sequence[int],
    like: Volume | None = None,
    ignore: int | None = None,
    *,
    trust_image_geometry: bool = False,
) -> Volume:
    """Read a label map and turn its values into class indices.

    Args:
        path: a 3D file of integers (of a floating-point type, too).
        values: the value on disk of each class index; at most 255 of them, 254 with `ignore`.
        like: the scan it belongs to; shape and affine have to agree.
        ignore: the value on disk of voxels that are not annotated; it becomes `IGNORE`.
        trust_image_geometry: take the affine of `like`, whatever the label's own says.

    Raises:
        UserError: a file that is missing, damaged, of another format, empty or not 3D; another grid than
            `like`; values that are not integers or not in `values`.
    """
    found = read_values(path)
    raw, affine = found.array, found.affine
    if like is not None:
        shape = like.array.shape[-3:]
        check_grid(path, raw.shape, affine, shape, like.affine, "its image", trust=trust_image_geometry)
        affine = like.affine
    label = np.empty(raw.shape, np.uint8)
    if tuple(values) == tuple(range(len(values))) and 0 <= int(raw.min()) <= int(raw.max()) < len(values):
        _fill(label, raw)
        return Volume(label, affine)
    unknown = _UNKNOWN - (ignore is not None)
    pairs = [*enumerate(values), *([(IGNORE, ignore)] if ignore is not None else [])]
    _class_indices(label, raw, pairs, unknown)
    if (wrong := label == unknown).any():
        what = "The label file holds values that are no class of this data set"
        declared = "the declared values " + ", ".join(map(str, values))
        do = 'declare them under "labels" in dataset.json, or correct the label file'
        raise bad_file(path, what, list_values(raw[wrong]), declared, do)
    return Volume(label, affine)


def read_values(path: Path) -> Volume:
    """Read a label map as the integers on disk, (X, Y, Z) of any integer type; errors as of `read_label`."""
    raw, affine = read_voxels(path, as_float=False)
    _check_3d(raw, path)
    return Volume(_as_integers(raw, path) if raw.dtype.kind == "f" else raw, affine)


def read_header(path: Path) -> nib.Nifti1Header:
    """Read the header of a NIfTI file, without extensions.

    Raises:
        UserError: a file that is missing, damaged or not NIfTI.
    """
    try:
        header = open_header(path)
        return _check_nifti(nib.load(path), path).header if header is None else header
    except _UNREADABLE as error:
        raise unreadable(path, error, "NIfTI", "a whole .nii or .nii.gz file") from error


def write_label(
    path: Path, label: Array, values: Sequence[int], affine: Array, header: nib.Nifti1Header | None = None
) -> None:
    """Write a label map with its original values in the smallest integer type that holds them all.

    Args:
        path: ends in `.nii` or `.nii.gz`; replaced as a whole or not at all.
        label: (X, Y, Z) class indices.
        values: the value on disk of each class index.
        affine: (4, 4), written as sform and qform (the qform cannot hold shears).
        header: of the source scan; its units, description and form codes are kept.
    """
    dtype = next(d for d in _LABEL_TYPES if np.iinfo(d).min <= min(values) and max(values) <= np.iinfo(d).max)
    table, stored = np.asarray(values, dtype), np.empty(label.shape, dtype)
    _fill(stored, label, lambda slab: table[slab])
    _save(path, stored, affine, header)


def write_map(path: Path, array: Array, affine: Array) -> None:
    """Write an (X, Y, Z) array, integers as they are, all else as float32; the rest as in `write_label`."""
    _save(path, array if array.dtype.kind in "iu" else np.asarray(array, np.float32), affine, None)


def read_voxels(path: Path, *, as_float: bool) -> tuple[Array, Array]:
    """Give the voxels, (X, Y, Z) or (X, Y, Z, C) with C > 1, and the affine, of a file of any format."""
    if not path.name.endswith((".nii", ".nii.gz")) and (reader := other_reader(path)) is not None:
        voxels, affine = reader(path)
        return (voxels.astype(np.float32, copy=False) if as_float else voxels), affine
    try:
        image = _check_nifti(open_nifti(path), path)
        shape = tuple(image.shape)
        if 0 in shape:
            raise bad_file(path, "The file holds no voxels", f"shape {shape}", "no axis of length 0")
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) not in (3, 4):
            raise bad_file(
                path, "The file is not a 3D image", f"shape {shape}", "3 axes, or 4 with channels last"
            )
        if image.get_data_dtype().kind not in "iuf":
            raise bad_file(
                path, "The voxels are not plain numbers", image.get_data_dtype(), "integers or floats"
            )
        affine = np.asarray(image.affine, np.float64)
        check_affine(affine, path)
        with np.errstate(over="ignore", invalid="ignore"):
            data = image.get_fdata(dtype=np.float32, caching="unchanged") if as_float else image.dataobj
            return np.asarray(data).reshape(shape, order="F"), affine
    except _UNREADABLE as error:
        raise unreadable(path, error, "NIfTI", "a whole .nii or .nii.gz file") from error


def _save(path: Path, array: Array, affine: Array, header: nib.Nifti1Header | None) -> None:
    if not path.name.endswith((".nii", ".nii.gz")):
        raise UserError("The output is not named as NIfTI", path=path, expected="a name ending in .nii.gz")
    image = nib.Nifti1Image(array, affine, header)
    image.set_data_dtype(array.dtype)
    image.header.extensions.clear()
    image.header["cal_min"] = image.header["cal_max"] = 0
    code = max(int(image.header["sform_code"]), int(image.header["qform_code"])) if header is not None else 1
    image.set_sform(affine, code or 1)
    image.set_qform(affine, code or 1)
    if image.header.get_xyzt_units()[0] == "unknown":
        image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _fill(out: Array, array: Array, function: Callable[[Array], Array] = lambda slab: slab) -> None:
    """Set `out` to `function(array)` slab by slab: a faster transposition, no large temporary arrays."""
    for y in range(array.shape[1]):
        out[:, y] = function(array[:, y])


def _class_indices(label: Array, raw: Array, pairs: Sequence[tuple[int, int]], unknown: int) -> None:
    """Set `label` (uint8) to the class indices of `raw` by (index, value); `unknown` where there is none."""
    low, high = int(raw.min()), int(raw.max())
    if high - low < 1 << 16:
        table = np.full(high - low + 1, unknown, np.uint8)
        for index, value in pairs:
            if low <= value <= high:
                table[value - low] = index
        _fill(label, raw, lambda slab: table[slab.astype(np.int64) - low])
        return
    label[...] = unknown
    for index, value in pairs:
        label[raw == value] = index


def _as_integers(raw: Array, path: Path) -> Array:
    with np.errstate(invalid="ignore"):
        whole = np.rint(raw)
        wrong = ~(np.abs(raw - whole) <= 1e-3)
    if wrong.any():
        what = "The label file holds values that are not integers"
        do = "interpolate label maps with nearest neighbor; threshold probability maps"
        raise bad_file(path, what, list_values(raw[wrong]), "one class value a voxel", do)
    return np.clip(whole, -(2.0**30), 2.0**30).astype(np.int32)


def list_values(voxels: Array, limit: int = 8) -> str:
    values, counts = np.unique(voxels, return_counts=True)
    parts = [f"{v} ({n} voxels)" for v, n in zip(values.tolist(), counts.tolist(), strict=True)]
    return ", ".join(parts[:limit]) + (f", and {len(parts) - limit} more" if len(parts) > limit else "")


def _check_finite(array: Array, path: Path) -> None:
    if not np.isfinite(array).all():
        nans, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        found = f"{nans} NaN and {infinite} infinite of {array.size} voxels"
        do = "replace them, e.g. by 0 with numpy.nan_to_num, and save the file again"
        raise bad_file(path, "The image holds values that are not finite", found, "finite numbers", do)


def _check_channels(found: int, channels: int | Sequence[str] | None, paths: Sequence[Path]) -> None:
    if channels is None:
        return
    wanted, names = (
        (channels, "") if isinstance(channels, int) else (len(channels), f" ({', '.join(channels)})")
    )
    if found != wanted:
        what = f"The image has another number of channels than the data set: expected {wanted}, found {found}"
        files = f"{found} in {', '.join(path.name for path in paths)}"
        do = "give one file a channel, or one 4D file, channels last; or correct the names in dataset.json"
        raise bad_file(paths[0], what, files, f"{wanted}{names}", do)


def _check_3d(array: Array, path: Path) -> None:
    if array.ndim != 3:
        raise bad_file(
            path, "The file is not a 3D image", f"shape {array.shape}", "3 axes, one value a voxel"
        )


def _check_nifti(image: Any, path: Path) -> Any:
    if not isinstance(image, nib.Nifti1Pair):
        raise bad_file(path, "The file is not NIfTI", type(image).__name__, "a .nii or .nii.gz file")
    return image
