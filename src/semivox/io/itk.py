"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd) through SimpleITK."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semivox.io.formats import Array, bad_file, check_affine, ras_affine, unreadable
from semivox.io.memory import check_memory
from semivox.io.metaimage import check_metaimage

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # warnings of the reader would stand between the messages


_SAMPLE_BYTES = 4  # of most types; what ITK itself needs
_HEADER_BYTES = 1 << 16


def read_itk(path: Path) -> tuple[Array, Array]:
    """Read the voxels, (X, Y, Z) or (X, Y, Z, C) with C > 1, and the affine, exactly as ITK understands them.

    Raises:
        UserError: a file that is missing, damaged, not 3D, of complex numbers or without a usable voxel size.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if not path.is_file():
            raise FileNotFoundError(path)
        if path.suffix.lower() in (".mha", ".mhd"):
            check_metaimage(path)
        reader.ReadImageInformation()
        if reader.GetDimension() not in (3, 4) or 0 in reader.GetSize():
            raise bad_file(
                path,
                "The file is not a 3D image",
                f"shape {reader.GetSize()}",
                "3 axes of at least one voxel",
            )
        check_affine(_affine(reader), path)
        check_memory(reader.GetSize(), _SAMPLE_BYTES * reader.GetNumberOfComponents(), path)
        image = reader.Execute()
    except (RuntimeError, OSError) as error:
        raise unreadable(path, error, "an image", "a whole .nrrd, .nhdr, .mha or .mhd file") from error
    array = sitk.GetArrayViewFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        if array.ndim != 4:
            raise bad_file(
                path, "The file is not a 3D image", f"shape {array.shape}", "3 axes and one of channels"
            )
        voxels = np.moveaxis(array, -1, 0).T  # (C, Z, Y, X) to (X, Y, Z, C)
    else:
        voxels = array.T
    if voxels.ndim == 4 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.dtype.kind not in "iuf":
        raise bad_file(path, "The voxels are not plain numbers", voxels.dtype, "integers or floats")
    return np.array(voxels, order="F"), _affine(image)


def data_file(path: Path) -> Path | None:
    """Give the file that a header (.mhd, .nhdr) names for its voxels; None: they lie in `path` itself."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return None
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES)
    name = re.search(rb"(?im)^(?:ElementDataFile\s*=|data ?file:)[ \t]*(\S.*?)\s*$", header)
    found = path.parent / name[1].decode(errors="replace") if name else path
    return found if found.is_file() and found != path else None


def _affine(image: sitk.Image | sitk.ImageFileReader) -> Array:
    size = len(image.GetSize())
    direction = np.reshape(image.GetDirection(), (size, size))[:3, :3]
    return ras_affine(direction * np.asarray(image.GetSpacing())[:3], np.asarray(image.GetOrigin())[:3])
