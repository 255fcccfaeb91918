"""Which endings a scan may have, and the message for a file that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semivox.errors import UserError

Array = npt.NDArray[Any]

NIFTI_ENDINGS = (".nii.gz", ".nii")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
DICOM_ENDINGS = (".dcm", ".ima")
ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS, *DICOM_ENDINGS)


class BadFileError(UserError):
    """One file that cannot be used; the other files of the same command still can."""


def bad_file(
    path: Path, what: str, found: object, expected: object, do: str = "replace this file"
) -> BadFileError:
    """Return the error for a file whose content cannot be used."""
    return BadFileError(what, found, expected, do, path)


def unreadable(path: Path, error: BaseException, name: str, wanted: str) -> BadFileError:
    """Return the error for a file that is missing, damaged, too large or not `wanted`, of the format `name`.

    `error` is the exception of the library that reads it.
    """
    if isinstance(error, FileNotFoundError):
        link = f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else None
        found = link or "nothing at this path"
        return bad_file(path, "The file does not exist", found, f"a {name} file", "check the path")
    if out_of_memory(error):
        return too_large(path, shortened_text(error))
    do = "it is damaged, incomplete or of another format: copy or download it again, or convert it"
    return bad_file(path, f"The file cannot be read as {name}", shortened_text(error), wanted, do)


def shortened_text(error: BaseException) -> str:
    """Return the text of an exception on one line, without what ITK puts around it."""
    text = re.sub(r"\w+ ?\(0x[0-9a-f]+\): ", "", str(error).rpartition("ERROR:")[2])
    return " ".join(text.split())[:300] or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out; NumPy, PyTorch and ITK each raise another one."""
    texts = ("allocate memory", "out of memory", "Failed to allocate")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def too_large(path: Path | None, found: object, expected: str = "a scan of usual size") -> BadFileError:
    """Return the error for a scan that does not fit into memory."""
    do = "check its header: shape, voxel size and unit may be wrong; if they are right, crop or downsample it"
    return BadFileError("The scan does not fit into this machine's memory", found, expected, do, path)


def stem(path: Path) -> str:
    """Return the name of a file without the ending of its format."""
    name = path.name
    ending = next((end for end in ENDINGS if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)]


def list_values(voxels: Array, limit: int = 8) -> str:
    """List the values of some voxels, each with its number of voxels."""
    values, counts = np.unique(voxels, return_counts=True)
    parts = [f"{v} ({n} voxels)" for v, n in zip(values.tolist(), counts.tolist(), strict=True)]
    return ", ".join(parts[:limit]) + (f", and {len(parts) - limit} more" if len(parts) > limit else "")
