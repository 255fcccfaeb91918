"""Scans and labels of every format as arrays, and label maps back as NIfTI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from semivox.io.dicom import read_dicom, read_series
from semivox.io.dicom_series import Series
from semivox.io.formats import DICOM_ENDINGS, ITK_ENDINGS, Array, bad_file, list_values
from semivox.io.geometry import GridOf, check_grid
from semivox.io.geometry import Volume as Volume  # noqa: PLC0414
from semivox.io.nifti import read_header as read_header  # noqa: PLC0414
from semivox.io.nifti import read_nifti, write_nifti
from semivox.io.reader import guarded

IGNORE = 255  # class index of voxels that are not annotated
_UNKNOWN = 255  # marks voxels whose value is no class; hence at most 255 classes, 254 beside an ignore value
_LABEL_TYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32)


@guarded
def read_image(
    paths: Sequence[Path | Series],
    channels: int | Sequence[str] | None = None,
    *,
    trust_image_geometry: bool = False,
) -> Volume:
    """Read one scan as float32: one 3D file a channel, or one file, 3D or 4D with the channels last.

    Args:
        paths: the files, in the order of the channels; or one DICOM series.
        channels: how many channels there have to be, or their names; None: any number.
        trust_image_geometry: take the first file's affine for all channels of its shape.

    Raises:
        UserError: a file is missing, damaged, of an unknown format, empty or not 3D; NaN or infinite values;
            channels on different grids; another number of channels than `channels`.
    """
    files = [item if isinstance(item, Path) else item.path for item in paths]
    first, affine = _read_voxels(paths[0], as_float=True)
    parts = np.moveaxis(first, -1, 0) if len(files) == 1 and first.ndim == 4 else first[np.newaxis]
    count = max(len(parts), len(files))
    check_channels(count, channels, files)
    _check_3d(parts[0], files[0])
    array = np.empty((count, *parts[0].shape), np.float32)
    for index, part in enumerate(parts):
        _fill(array[index], part)
    check_finite(array[: len(parts)], files[0])
    for index, path in enumerate(files[1:], start=1):
        part, part_affine = _read_voxels(path, as_float=True)
        other = f"channel {files[0].name}"
        check_grid(path, (part.shape, part_affine), (first.shape, affine), other, trust=trust_image_geometry)
        check_finite(part, path)
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
    """Read a label map as class indices, (X, Y, Z) uint8.

    Args:
        path: the file.
        values: the value on disk of each class, background first.
        like: the image that the label belongs to; grids are compared.
        ignore: the value on disk of voxels that are not annotated; they become `IGNORE`.
        trust_image_geometry: accept any affine and take that of `like`.

    Raises:
        UserError: the file cannot be read, is not 3D, or lies on another grid than `like`; values that are
            not integers or no class, listed with the number of their voxels.
    """
    grid = None if like is None else like.grid  # its voxels stay here
    return _read_label(path, values, grid, ignore, trust_image_geometry)


@guarded
def _read_label(
    path: Path, values: Sequence[int], like: GridOf | None, ignore: int | None, trust: bool
) -> Volume:
    raw, affine = _read_integers(path)
    if like is not None:
        check_grid(path, (raw.shape, affine), like, "its image", trust=trust)
        affine = like[1]
    label = np.empty(raw.shape, np.uint8)
    if tuple(values) == tuple(range(len(values))) and 0 <= int(raw.min()) <= int(raw.max()) < len(values):
        _fill(label, raw)
        return Volume(label, affine)
    unknown = _UNKNOWN - (ignore is not None)
    label[...] = unknown
    for index, value in [*enumerate(values), *([(IGNORE, ignore)] if ignore is not None else [])]:
        label[raw == value] = index
    if (wrong := label == unknown).any():
        what = "The label file holds values that are no class of this data set"
        declared = "the declared values " + ", ".join(map(str, values))
        do = "declare them (labels in dataset.json, or --class NAME=VALUE), or correct the label file"
        raise bad_file(path, what, list_values(raw[wrong]), declared, do)
    return Volume(label, affine)


@guarded
def read_values(path: Path) -> Volume:
    """Read a label map as the integers on disk, (X, Y, Z) of any integer type; errors as of `read_label`."""
    return Volume(*_read_integers(path))


def write_label(
    path: Path, label: Array, values: Sequence[int], affine: Array, header: nib.Nifti1Header | None = None
) -> None:
    """Write class indices (X, Y, Z) as `values`, in the smallest integer type that holds them all.

    See `write_nifti`; `header` is that of the scan on whose grid the label lies.
    """
    dtype = next(d for d in _LABEL_TYPES if np.iinfo(d).min <= min(values) and max(values) <= np.iinfo(d).max)
    table, stored = np.asarray(values, dtype), np.empty(label.shape, dtype)
    _fill(stored, label, lambda slab: table[slab])
    write_nifti(path, stored, affine, header)


def write_map(path: Path, array: Array, affine: Array) -> None:
    """Write an (X, Y, Z) array, integers as they are, all else as float32; see `write_nifti`."""
    write_nifti(path, array if array.dtype.kind in "iu" else np.asarray(array, np.float32), affine)


def _read_voxels(source: Path | Series, *, as_float: bool) -> tuple[Array, Array]:
    """Read the voxels, (X, Y, Z) or (X, Y, Z, C) with C > 1, and the affine; a folder is a DICOM series."""
    if isinstance(source, Series):
        return read_series(source)
    if source.exists() and not (source.is_file() or source.is_dir()):  # a reader would wait for ever
        raise bad_file(source, "The path is neither a file nor a folder", "a pipe or a device", "a scan")
    if source.is_dir() or source.name.lower().endswith(DICOM_ENDINGS):
        voxels, affine = read_dicom(source)
    elif source.name.lower().endswith(ITK_ENDINGS):
        from semivox.io.itk import read_itk  # SimpleITK takes long to import

        voxels, affine = read_itk(source)
    else:
        voxels, affine = read_nifti(source, as_float=as_float)
    return (voxels.astype(np.float32, copy=False) if as_float else voxels), affine


def _read_integers(path: Path) -> tuple[Array, Array]:
    """Read a label map, (X, Y, Z) integers, and its affine."""
    raw, affine = _read_voxels(path, as_float=False)
    _check_3d(raw, path)
    if raw.dtype.kind != "f":
        return raw, affine
    with np.errstate(invalid="ignore"):
        whole = np.rint(raw)
        wrong = ~(np.abs(raw - whole) <= 1e-3)
    if wrong.any():
        what = "The label file holds values that are not integers"
        do = "interpolate label maps with nearest neighbor; threshold probability maps"
        raise bad_file(path, what, list_values(raw[wrong]), "one class value a voxel", do)
    return np.clip(whole, -(2.0**30), 2.0**30).astype(np.int32), affine


def _fill(out: Array, array: Array, function: Callable[[Array], Array] = lambda slab: slab) -> None:
    """Set `out` to `function(array)` slab by slab: a faster transposition, no large temporary arrays."""
    for y in range(array.shape[1]):
        out[:, y] = function(array[:, y])


def check_finite(array: Array, path: Path) -> None:
    if not np.isfinite(array).all():
        nans, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        found = f"{nans} NaN and {infinite} infinite of {array.size} voxels"
        do = "replace them, e.g. by 0 with numpy.nan_to_num, and save the file again"
        raise bad_file(path, "The image holds values that are not finite", found, "finite numbers", do)


def check_channels(found: int, channels: int | Sequence[str] | None, files: Sequence[Path]) -> None:
    wanted = len(channels) if isinstance(channels, Sequence) else channels
    if wanted is not None and found != wanted:
        what = f"The image has another number of channels than the data set: expected {wanted}, found {found}"
        expected = f"{wanted} ({', '.join(channels)})" if isinstance(channels, Sequence) else str(wanted)
        do = "use one file a channel, or one 4D file, channels last; or correct the names in dataset.json"
        in_files = f"{found} in {', '.join(path.name for path in files)}"
        raise bad_file(files[0], what, in_files, expected, do)


def _check_3d(array: Array, path: Path) -> None:
    if array.ndim != 3:
        raise bad_file(path, "The file is not a 3D image", f"shape {array.shape}", "3 axes")
