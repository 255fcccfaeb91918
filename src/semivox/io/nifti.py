"""NIfTI files in and out, with the place of their voxels exactly as it stands in the header."""

from __future__ import annotations

import gzip
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from semivox.errors import UserError
from semivox.files import replacing
from semivox.io.formats import NIFTI_ENDINGS, Array, bad_file, unreadable
from semivox.io.geometry import check_affine, is_sheared
from semivox.io.reader import check_memory, guarded

_HEADER_BYTES = 540  # of NIfTI-2, the longer header
_SURPLUS = 1 << 20  # bytes that may follow the voxels: some programs pad their files
_UNIT_MM = {1: 1e3, 3: 1e-3}  # metres and micrometres by their code in xyzt_units; everything else is mm
_PLACE = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units", "descrip"),
)


def read_nifti(path: Path, *, as_float: bool) -> tuple[Array, Array]:
    """Read the voxels, (X, Y, Z) or (X, Y, Z, C) with C > 1, and the affine, voxel to world mm (RAS+)."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if _is_packed(content) else content  # verifies the checksum
        kind, raw = _raw_header(content)
        header = kind.header_class(raw.binaryblock)  # repaired by nibabel
        shape = _shape(header, len(content), path)
        dtype = header.get_data_dtype()
        if dtype.kind not in "iuf":
            raise bad_file(path, "The voxels are not plain numbers", dtype, "integers or floats")
        affine = _affine(raw, header, path)
        check_memory(shape, int(dtype.itemsize), path)
        with np.errstate(over="ignore", invalid="ignore"):
            proxy = kind.ImageArrayProxy(BytesIO(content), header)
            return np.asarray(proxy, np.float32 if as_float else None).reshape(shape, order="F"), affine
    except UserError:
        raise
    except Exception as error:  # nibabel and zlib raise whatever they meet in a damaged file
        raise unreadable(path, error, "NIfTI", "a whole .nii or .nii.gz file") from error


@guarded
def read_header(path: Path) -> nib.Nifti1Header:
    """Read the header alone, as it is in the file, without extensions; errors as of `read_nifti`."""
    try:
        with path.open("rb") as stream:
            opened = gzip.GzipFile(fileobj=stream) if _is_packed(stream.peek(2)) else stream
            return _raw_header(opened.read(_HEADER_BYTES))[1]
    except Exception as error:
        raise unreadable(path, error, "NIfTI", "a whole .nii or .nii.gz file") from error


def write_nifti(path: Path, array: Array, affine: Array, like: nib.Nifti1Header | None = None) -> None:
    """Write an array in its own type; `path` is replaced as a whole or not at all.

    Args:
        path: ends in `.nii` or `.nii.gz`.
        array: (X, Y, Z).
        affine: (4, 4), written as sform, and as qform unless it is sheared, which a qform cannot hold.
        like: the header of the scan on whose grid the array lies. Both forms, their codes, voxel size and
            unit are then copied from it, instead of `affine`: every program puts the two in the same place.
    """
    if not path.name.lower().endswith(NIFTI_ENDINGS):
        raise UserError("The output is not named as NIfTI", None, "a name ending in .nii.gz", path=path)
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    if like is None:
        header.set_sform(affine, 1)
        header.set_qform(affine, 0 if is_sheared(affine) else 1)
        header.set_xyzt_units("mm")
    else:
        header["pixdim"][:4] = like["pixdim"][:4]
        for name in _PLACE:
            header[name] = like[name]
    with replacing(path) as temporary:
        nib.save(nib.Nifti1Image(array, None, header), temporary)


def _is_packed(content: bytes) -> bool:
    """Whether the content is gzip, whatever the name says."""
    return content[:2] == b"\x1f\x8b"


def _raw_header(content: bytes) -> tuple[Any, Any]:
    """Return the image class and the header without nibabel's repairs."""
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(content[:_HEADER_BYTES]):
            return kind, kind.header_class(content[: kind.header_class.sizeof_hdr], check=False)
    raise ValueError("the file does not begin with a NIfTI header" if content else "the file is empty")


def _shape(header: Any, held: int, path: Path) -> tuple[int, ...]:
    """Return the shape without trailing axes of length 1, after a comparison with the length of the file."""
    shape = tuple(map(int, header.get_data_shape()))
    size = int(header.get_data_offset()) + prod(shape) * int(header.get_data_dtype().itemsize)
    if min(shape, default=0) < 0 or not size <= held <= size + _SURPLUS:
        raise OSError(f"the header announces the shape {shape} in {size} bytes, but the file holds {held}")
    if 0 in shape:
        raise bad_file(path, "The file holds no voxels", f"shape {shape}", "no axis of length 0")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4):
        raise bad_file(path, "The file is not a 3D image", f"shape {shape}", "3 axes, or 4: channels last")
    return shape


def _affine(raw: Any, header: Any, path: Path) -> Array:
    """Return the affine in mm: from the sform, else the qform, else the voxel size alone.

    nibabel would silently replace a voxel size of 0 by 1, and a negative one.
    """
    sides = raw["pixdim"][1:4].tolist()
    if not all(0 < side < np.inf for side in sides) or raw["pixdim"][0] not in (-1, 0, 1):
        what, expected = "The voxel size in the header is not positive", "-1 or 1, and three lengths above 0"
        found = f"pixdim {' '.join(f'{value:g}' for value in raw['pixdim'][:4])}"
        raise bad_file(path, what, found, expected, "correct the header, and look at the scan")
    unit = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    affine = np.diag([unit, unit, unit, 1.0]) @ np.asarray(header.get_best_affine(), np.float64)
    check_affine(affine, path)
    return affine
