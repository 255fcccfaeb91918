"""DICOM-SEG objects as label maps, by segment; needs the extra `dicom` (highdicom)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semivox.errors import UserError
from semivox.io.dicom import volume_affine
from semivox.io.dicom_series import dicom_package
from semivox.io.formats import Array, bad_file, unreadable
from semivox.io.geometry import Volume, onto_grid
from semivox.io.reader import guarded


@guarded
def segments(path: Path) -> dict[str, int]:
    """Return name and number of the segments of a DICOM-SEG file, the background left out.

    Raises:
        UserError: no DICOM-SEG file; two segments of the same name.
    """
    found = _open(path)
    names: dict[str, int] = {}
    for number in found.segment_numbers:
        name = str(found.get_segment_description(number).segment_label).strip()
        if number == 0:  # the background of a label map
            continue
        if name in names:
            raise bad_file(path, "Two segments have the same name", name, "names that differ", "rename one")
        names[name] = int(number)
    return names


def read_segments(path: Path, values: Mapping[str, int], like: Volume) -> Array:
    """Read segments by name onto the grid of an image.

    Args:
        path: the DICOM-SEG file.
        values: what each segment becomes in the label map; segments not named are left out, names that this
            file does not have, too.
        like: the image; frames may be missing (nothing is marked there), and stored in another order.

    Returns:
        (X, Y, Z) int32 on the grid of `like`.

    Raises:
        UserError: a damaged file; probabilities instead of segments; segments that overlap; a grid that is
            not the image's.
    """
    volume = _read(path, values)
    return onto_grid(volume, like, path) if volume else np.zeros(like.array.shape[-3:], np.int32)


@guarded
def _read(path: Path, values: Mapping[str, int]) -> Volume | None:
    """Read segments onto the grid of their own file; None if it has none of them."""
    numbers = {number: values[name] for name, number in segments(path).items() if name in values}
    if not numbers:
        return None
    try:
        volume = _open(path).get_volume(segment_numbers=sorted(numbers), combine_segments=True)
    except UserError:
        raise
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        raise _unusable(path, error) from error
    raw = np.asarray(volume.array).T
    wanted = np.zeros(raw.shape, np.int32)
    for number, value in numbers.items():
        wanted[raw == number] = value
    return Volume(wanted, volume_affine(volume))


def _open(path: Path) -> Any:
    highdicom = dicom_package("highdicom", path)
    try:
        return highdicom.seg.segread(path)
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        raise unreadable(path, error, "DICOM-SEG", "a whole DICOM segmentation object") from error


def _unusable(path: Path, error: BaseException) -> UserError:
    text = " ".join(str(error).split())
    if "overlap" in text:
        do = "import one of them only, or some that do not: --class NAME=VALUE for each"
        names = ", ".join(segments(path))
        return bad_file(path, "Segments overlap", f"among {names}", "one class a voxel", do)
    if "FRACTIONAL" in text:
        do = "threshold it, and save it as a binary segmentation"
        return bad_file(path, "The segmentation holds probabilities", "fractional", "binary segments", do)
    return unreadable(path, error, "DICOM-SEG", "segments on a regular stack of planes")
