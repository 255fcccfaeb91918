"""DICOM-SEG objects as label maps, by segment; needs the extra `dicom` (highdicom)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semivox.io.dicom import volume_affine
from semivox.io.dicom_series import dicom_package
from semivox.io.formats import Array, bad_file, unreadable
from semivox.io.geometry import Volume, onto_grid
from semivox.io.reader import guarded


@guarded
def segments(path: Path) -> dict[str, int]:
    """Return name and number of the segments of a DICOM-SEG file, the background left out."""
    return _names(_open(path), path)


def read_segments(path: Path, values: Mapping[str, int], like: Volume) -> Array:
    """Read segments as `values` by name onto the grid of an image, (X, Y, Z) int32.

    Segments that are not named are left out, names that the file does not have, too. Frames may be missing
    (nothing is marked there), and stored in another order.
    """
    volume = _read(path, values)
    return onto_grid(volume, like, path) if volume else np.zeros(like.array.shape[-3:], np.int32)


@guarded
def _read(path: Path, values: Mapping[str, int]) -> Volume | None:
    """Read segments onto the grid of their own file; None if it has none of them."""
    file = _open(path)
    names = _names(file, path)
    numbers = {number: values[name] for name, number in names.items() if name in values}
    if not numbers:
        return None
    try:
        volume = file.get_volume(segment_numbers=sorted(numbers), combine_segments=True)
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        if "overlap" in str(error):
            what, do = "Segments overlap", "import some that do not: --class NAME=VALUE for each"
            raise bad_file(path, what, f"among {', '.join(names)}", "one class a voxel", do) from error
        if "FRACTIONAL" in str(error):
            what, do = "The segmentation holds probabilities", "save it as a binary segmentation"
            raise bad_file(path, what, "fractional", "binary segments", do) from error
        raise unreadable(path, error, "DICOM-SEG", "segments on a regular stack of planes") from error
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


def _names(file: Any, path: Path) -> dict[str, int]:
    numbers = [int(number) for number in file.segment_numbers if number != 0]  # 0: background of a label map
    labels = [str(file.get_segment_description(number).segment_label).strip() for number in numbers]
    if len(set(labels)) < len(labels):
        raise bad_file(path, "Two segments have the same name", ", ".join(labels), None, "rename one")
    return dict(zip(labels, numbers, strict=True))
