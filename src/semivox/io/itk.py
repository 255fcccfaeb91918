"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd) through SimpleITK."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.io.formats import Array, bad_file, unreadable
from semivox.io.geometry import check_affine, ras_affine
from semivox.io.reader import check_memory

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # warnings of the reader would stand between the messages

_SAMPLE_BYTES = 4  # of most types; what ITK itself needs
_HEADER_BYTES = 1 << 20  # with the names of many slices


def read_itk(path: Path) -> tuple[Array, Array]:
    """Read the voxels, (X, Y, Z) or (X, Y, Z, C) with C > 1, and the affine, exactly as ITK understands them.

    Raises:
        UserError: a file that is missing, damaged, not 3D, of complex numbers or without a usable voxel size.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    if path.suffix.lower() in (".mha", ".mhd"):
        reader.SetImageIO("MetaImageIO")  # which ITK finds by itself only for endings in small letters
    try:
        _check_slices(path)
        reader.ReadImageInformation()
        size = reader.GetSize()
        if reader.GetDimension() not in (3, 4) or 0 in size:
            expected = "3 axes of at least one voxel"
            raise bad_file(path, "The file is not a 3D image", f"shape {size}", expected)
        check_affine(_affine(reader), path)
        check_memory(size, _SAMPLE_BYTES * reader.GetNumberOfComponents(), path)
        image = reader.Execute()
    except UserError:
        raise
    except Exception as error:
        raise unreadable(path, error, "an image", "a whole .nrrd, .nhdr, .mha or .mhd file") from error
    array = sitk.GetArrayViewFromImage(image)
    voxels = array.T
    if image.GetNumberOfComponentsPerPixel() > 1:
        if array.ndim != 4:
            expected = "3 axes and one of channels"
            raise bad_file(path, "The file is not a 3D image", f"shape {array.shape}", expected)
        voxels = np.moveaxis(array, -1, 0).T  # (C, Z, Y, X) to (X, Y, Z, C)
    if voxels.ndim == 4 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.dtype.kind not in "iuf":
        raise bad_file(path, "The voxels are not plain numbers", voxels.dtype, "integers or floats")
    return np.array(voxels, order="F"), _affine(image)


def data_file(path: Path) -> Path | None:
    """Return the file that a header (.mhd, .nhdr) names for its voxels; None: they lie in `path` itself."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return None
    name = re.search(rb"(?im)^(?:ElementDataFile\s*=|data ?file:)[ \t]*(\S.*?)\s*$", _header(path))
    found = path.parent / name[1].decode(errors="replace") if name else path
    return found if found.is_file() and found != path else None


def _check_slices(path: Path) -> None:
    """Refuse a MetaImage of one file a slice whose files are more or fewer than its slices.

    ITK returns such an image with voxels of memory that nothing was read into.
    """
    header = _header(path)
    if path.suffix.lower() not in (".mha", ".mhd"):
        return
    head, _, named = header.partition(b"\nElementDataFile")
    sizes = re.findall(rb"(?im)^[ \t]*DimSize\s*=[ \t]*([-+\d].*)", head)
    first, *others = named.partition(b"=")[2].strip().splitlines() or [b""]
    words, shape = first.split(), [_number(size) for size in sizes[-1].split()] if sizes else []
    if first.startswith(b"LIST"):
        count = sum(bool(line.strip()) for line in others)
        if len(words) > 1 and _number(words[1]) not in (0, len(shape) - 1):
            count = 0  # files of other than all axes but the last
    elif b"%" in first and len(words) >= 3:  # pattern, first number, last number, step
        step = _number(words[3]) if len(words) == 4 else 0
        count = len(range(_number(words[1]), _number(words[2]) + 1, step)) if step > 0 else 0
    else:
        return
    if shape and count != shape[-1]:
        what = "The voxels lie in a file a slice, and the files do not make up the image"
        expected = (
            f"{shape[-1]} files for DimSize = {' '.join(map(str, shape))}; "
            "a pattern has a first number, a last one and a step above 0, or only the first"
        )
        raise bad_file(path, what, f"{first.decode(errors='replace').strip()} ({count} files)", expected)


def _header(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEADER_BYTES)


def _number(text: bytes) -> int:
    """Read as C does: what follows the digits does not count, and without digits it is 0."""
    found = re.match(rb"[-+]?\d+", text)
    return int(found[0]) if found else 0


def _affine(image: sitk.Image | sitk.ImageFileReader) -> Array:
    size = len(image.GetSize())
    direction = np.reshape(image.GetDirection(), (size, size))[:3, :3]
    return ras_affine(direction * np.asarray(image.GetSpacing())[:3], np.asarray(image.GetOrigin())[:3])
