"""Which reader reads a file that is not NIfTI, and what to say about a file that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semivox.errors import UserError
from semivox.io.geometry import affine_text, is_degenerate

Array = npt.NDArray[Any]
Reader = Callable[[Path], tuple[Array, Array]]

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_ENDINGS = (".dcm", ".ima")
ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS, *DICOM_ENDINGS)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def other_reader(path: Path) -> Reader | None:
    """Give the function that reads voxels and affine of a NRRD or MetaImage file or of DICOM; else None.

    A folder counts as DICOM: it holds the slices of one series.
    """
    name = path.name.lower()
    if name.endswith(ITK_ENDINGS):
        from semivox.io.itk import read_itk

        return read_itk
    if name.endswith(DICOM_ENDINGS) or path.is_dir():
        from semivox.io.dicom import read_dicom

        return read_dicom
    return None


def stem(path: Path) -> str:
    """Give the name of a file without the ending of its format."""
    name = path.name
    ending = next((end for end in ENDINGS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def ras_affine(axes: Array, origin: Array) -> Array:
    """Give (4, 4), voxel to world mm (RAS+), from DICOM's and ITK's world (LPS+).

    Args:
        axes: (3, 3), the step in mm from one voxel to the next along each array axis, in columns.
        origin: (3,), the center of the first voxel.
    """
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    return _LPS_TO_RAS @ affine


def check_affine(affine: Array, path: Path) -> None:
    """Refuse an affine that places no grid: zero or infinite voxel size, dependent axes."""
    if is_degenerate(affine):
        raise bad_file(path, "The affine is degenerate", affine_text(affine), "three independent axes in mm")


def bad_file(
    path: Path, what: str, found: object, expected: object, do: str = "replace this file"
) -> UserError:
    """Make the message for a file whose content cannot be used."""
    return UserError(what, path=path, found=found, expected=expected, do=do)


def unreadable(path: Path, error: BaseException, name: str, wanted: str) -> UserError:
    """Make the message for a file that is missing, damaged or of another format.

    Args:
        path: the file.
        error: what the library that reads it raised.
        name: of the format.
        wanted: what a good file would be.
    """
    if isinstance(error, FileNotFoundError):
        return bad_file(
            path, "The file does not exist", "nothing at this path", f"a {name} file", "check the path"
        )
    text = re.sub(r"\w+\(0x[0-9a-f]+\): ", "", str(error).rpartition("ERROR:")[2])  # without ITK's addresses
    found = " ".join(text.split())[:300] or type(error).__name__
    do = "it is damaged, incomplete or of another format: copy or download it again, or convert it"
    return bad_file(path, f"The file cannot be read as {name}", found, wanted, do)
