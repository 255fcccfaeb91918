"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd) through SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.files import named_voxels
from semivox.io.formats import Array, bad_file, unreadable
from semivox.io.geometry import check_affine, ras_affine
from semivox.io.reader import check_memory

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # warnings of the reader would stand between the messages

_SAMPLE_BYTES = 4  # of most types; what ITK itself needs


def read_itk(path: Path) -> tuple[Array, Array]:
    """Read the voxels, (X, Y, Z) or (X, Y, Z, C) with C > 1, and the affine, as ITK understands them."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        if path.suffix.lower() in (".mha", ".mhd"):
            reader.SetImageIO("MetaImageIO")  # which ITK finds by itself only for endings in small letters
            named = named_voxels(path)
            if named.startswith("LIST") or "%" in named:  # ITK does not notice slices that lack
                what, do = "The voxels lie in a file a slice", "save the image again as one file"
                raise bad_file(path, what, named, "one file of voxels", do)
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        if len(size) not in (3, 4) or 0 in size or (len(size) == 4 and components > 1):
            raise bad_file(path, "The file is not a 3D image", f"shape {size}", "3 axes of voxels")
        check_affine(_affine(reader), path)
        check_memory(size, _SAMPLE_BYTES * components, path)
        voxels, affine = voxels_of(reader.Execute())
    except UserError:
        raise
    except Exception as error:
        raise unreadable(path, error, "an image", "a whole .nrrd, .nhdr, .mha or .mhd file") from error
    if voxels.dtype.kind not in "iuf":
        raise bad_file(path, "The voxels are not plain numbers", voxels.dtype, "integers or floats")
    return voxels, affine


def voxels_of(image: sitk.Image) -> tuple[Array, Array]:
    """Return a copy of the voxels in memory, (X, Y, Z) or (X, Y, Z, C) with C > 1, and the affine."""
    array = sitk.GetArrayViewFromImage(image)
    voxels = np.moveaxis(array, -1, 0).T if image.GetNumberOfComponentsPerPixel() > 1 else array.T
    if voxels.ndim == 4 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    return np.array(voxels, order="F"), _affine(image)


def _affine(image: sitk.Image | sitk.ImageFileReader) -> Array:
    size = len(image.GetSize())
    direction = np.reshape(image.GetDirection(), (size, size))[:3, :3]
    return ras_affine(direction * np.asarray(image.GetSpacing())[:3], np.asarray(image.GetOrigin())[:3])
