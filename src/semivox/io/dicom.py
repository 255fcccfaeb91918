"""DICOM series: which there are in a folder, and one of them as a volume.

Slices are put in order by their positions, never by name or instance number. The affine comes from their own
orientation, pixel spacing and positions, so that a tilted gantry stays a sheared grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semivox.io.dicom_series import Series, Slice, dicom_package, find_series, list_series, read_dataset
from semivox.io.formats import Array, bad_file, unreadable
from semivox.io.geometry import check_affine, ras_affine
from semivox.io.reader import guarded

_SAME_STEP = 0.05  # of the usual distance between slices; positions are often rounded to 0.1 mm
_SAME = 1e-3  # of directions and pixel spacings


def read_dicom(path: Path) -> tuple[Array, Array]:
    """Read voxels (X, Y, Z) and affine of a folder that holds one series, or of one multi-frame file.

    Raises:
        UserError: no series or several; what `read_series` says.
    """
    if path.is_dir():
        series = find_series(path)
        if len(series) != 1:
            what, do = "The folder does not hold exactly one DICOM image series", "name one with --series"
            raise bad_file(path, what, list_series(series) or "none", "the slices of one series", do)
        return read_series(series[0])
    return read_series(series_of(path))


@guarded
def read_series(series: Series) -> tuple[Array, Array]:
    """Read a series: voxels (X, Y, Z) in the unit of the modality (HU for CT), and the affine.

    X runs along the rows of the slices, Y down their columns, Z from the lowest to the highest position along
    the slices' normal.

    Raises:
        UserError: a damaged file; slices of different size, orientation or pixel spacing; two at one
            position; a missing slice; a pixel spacing of zero.
    """
    first = series.slices[0]
    if first.frames > 1:
        if len(series.slices) > 1:
            found = f"{len(series.slices)} multi-frame files"
            raise bad_file(first.path, "The series has several multi-frame files", found, "one", "keep one")
        return _read_multiframe(first.path)
    slices, affine = place_slices(series)
    return np.stack([_pixels(item.path) for item in slices], axis=-1), affine


def place_slices(series: Series) -> tuple[list[Slice], Array]:
    """Return single-frame slices in the order of the array's Z axis, and the affine; no pixels are read.

    Raises:
        UserError: as of `read_series`.
    """
    _check_alike(series.slices)
    slices, axes = _ordered(series.slices)
    affine = ras_affine(axes, slices[0].position)
    check_affine(affine, slices[0].path)
    return slices, affine


@guarded
def series_of(path: Path) -> Series:
    """Return a multi-frame file as a series.

    Raises:
        UserError: a damaged file, or one slice of a series.
    """
    if not path.is_file():
        raise unreadable(path, FileNotFoundError(path), "DICOM", "")
    found = Slice.read(path)
    if found.frames == 1:
        named = f"series {found.number} {found.description}".rstrip()
        expected = "a volume: the folder of a series, or a multi-frame file"
        do = f"name the folder: {path.parent}"
        raise bad_file(path, "The file is a single DICOM slice", named, expected, do)
    return Series((found,))


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for item in slices:
        if item.position is None or item.orientation is None or item.spacing is None:
            what, found = "The DICOM slice has no place in space", "no position, orientation or pixel spacing"
            do = "export the series again; scanned films and screenshots cannot be used"
            raise bad_file(item.path, what, found, "these three tags in each slice", do)
        if not all(side > 0 for side in item.spacing):
            raise bad_file(item.path, "The pixel spacing is not positive", item.spacing, "two lengths in mm")
        for name in ("size", "orientation", "pixel spacing"):
            found, wanted = (getattr(one, name.removeprefix("pixel ")) for one in (item, first))
            if not np.allclose(found, wanted, rtol=0 if name == "size" else _SAME, atol=_SAME):
                what = f"The slices of the series do not belong together: another {name}"
                expected = f"{_numbers(wanted)} as in {first.path.name}"
                do = "move the slices of the other acquisition to a folder of their own"
                raise bad_file(item.path, what, _numbers(found), expected, do)


def _ordered(slices: Sequence[Slice]) -> tuple[list[Slice], Array]:
    """Sort slices by position; return also the steps along the axes, (3, 3) in columns, LPS."""
    row, column = slices[0].orientation[:3], slices[0].orientation[3:]
    normal = np.cross(row, column)
    ordered = sorted(slices, key=lambda item: float(normal @ item.position))
    heights = np.array([normal @ item.position for item in ordered])
    if len(ordered) == 1:
        if ordered[0].thickness <= 0:
            path = ordered[0].path
            raise bad_file(path, "The only slice has no thickness", "no slice thickness", "a length in mm")
        step = normal * ordered[0].thickness
    else:
        _check_steps(ordered, np.diff(heights))
        step = (ordered[-1].position - ordered[0].position) / (len(ordered) - 1)
    across, down = ordered[0].spacing[1], ordered[0].spacing[0]
    return ordered, np.stack([row * across, column * down, step], axis=1)


def _check_steps(slices: Sequence[Slice], steps: Array) -> None:
    usual = float(np.median(steps))
    for index, step in enumerate(steps.tolist()):
        path = slices[index + 1].path
        between = f"{slices[index].path.name} and {path.name}"
        if step < 1e-3:
            do = "the series has several phases or a copy: move the others to a folder of their own"
            what = "Two slices of the series are at the same position"
            raise bad_file(path, what, between, "one slice at each position", do)
        if abs(step - usual) > _SAME_STEP * usual:
            count = round(step / usual) - 1
            gap = count > 0 and abs(step / (count + 1) - usual) <= _SAME_STEP * usual
            lacking = f"The series lacks {count} slice{'s' * (count > 1)}"
            expected = f"{usual:.6g} mm as between most of the {len(slices)} slices"
            do = "export the series again, with all its slices" if gap else "resample it to an even spacing"
            what = lacking if gap else "Slices are unevenly spaced"
            raise bad_file(path, what, f"{step:.6g} mm between {between}", expected, do)


def _pixels(path: Path) -> Array:
    """Return (X, Y) of one slice in the unit of its modality, float32."""
    dataset, pixels = read_dataset(path), dicom_package("pydicom.pixels", path)
    if dataset.get("SamplesPerPixel", 1) != 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        found = f"{dataset.get('SamplesPerPixel', 1)} samples, {dataset.get('PhotometricInterpretation')}"
        raise bad_file(path, "The DICOM slice is a color picture", found, "one value a pixel")
    try:
        values = pixels.apply_modality_lut(dataset.pixel_array, dataset)
        if values.ndim != 2:
            raise ValueError(f"pixels of shape {values.shape}")
        return np.asarray(values, np.float32).T
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        if "missing dependencies" in str(error):
            what, found = "The DICOM file is compressed in a way that needs another package", str(error)
            do = "install one of these packages with pip, or export the series without compression"
            raise bad_file(path, what, found, "pixels that the installed packages can unpack", do) from error
        raise unreadable(path, error, "DICOM", "a whole DICOM file") from error


def _read_multiframe(path: Path) -> tuple[Array, Array]:
    volume = multiframe_volume(path)
    return np.asarray(volume.array).T, volume_affine(volume)


def volume_affine(volume: Any) -> Array:
    """Return the affine (RAS+) of a highdicom volume for its array with reversed axes."""
    return ras_affine(volume.affine[:3, :3][:, ::-1], volume.affine[:3, 3])


def multiframe_volume(path: Path) -> Any:
    """Read a multi-frame file as a highdicom volume; its axes are those of the array in reverse order.

    Raises:
        UserError: no regular stack of frames of one value a voxel; highdicom is not installed.
    """
    highdicom = dicom_package("highdicom", path)
    try:
        volume = highdicom.imread(path).get_volume(dtype=np.float32)
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        raise unreadable(path, error, "a multi-frame DICOM image", "a regular stack of frames") from error
    if volume.array.ndim != 3:
        shape = volume.array.shape
        raise bad_file(path, "The DICOM file is a color picture", f"shape {shape}", "one value a voxel")
    if np.linalg.det(volume.affine[:3, :3][:, ::-1]) < 0:  # highdicom stacks frames downwards
        volume = volume.flip_spatial(0)
    return volume


def _numbers(values: Sequence[float] | Array) -> str:
    return " ".join(f"{value:g}" for value in values)
