"""One DICOM series as a volume, and DICOM-SEG objects as label maps.

Slices are put in order by their positions, never by name or instance number. The affine comes from their own
orientation, pixel spacing and positions, so that a tilted gantry stays a sheared grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semivox.io.dicom_series import Series, Slice, choose_series, dicom_package, find_series, read_dataset
from semivox.io.formats import Array, bad_file, shortened_text, unreadable
from semivox.io.geometry import Volume, check_affine, onto_grid, ras_affine
from semivox.io.reader import guarded

_SAME_STEP = 0.05  # of the usual distance between slices; positions are often rounded to 0.1 mm
_SAME = 1e-3  # of directions and pixel spacings


def read_dicom(path: Path) -> tuple[Array, Array]:
    """Read voxels (X, Y, Z) and affine of a folder that holds one series, or of one multi-frame file."""
    if not path.is_dir():
        return read_series(series_of(path))
    return read_series(choose_series(find_series(path), None, path))


@guarded
def read_series(series: Series) -> tuple[Array, Array]:
    """Read a series: voxels (X, Y, Z) in the unit of the modality (HU for CT), and the affine.

    X runs along the rows of the slices, Y down their columns, Z from the lowest to the highest position along
    the slices' normal.
    """
    if series.slices[0].frames > 1:
        volume = multiframe_volume(series)
        return np.asarray(volume.array).T, volume_affine(volume)
    slices, affine = place_slices(series)
    return np.stack([_pixels(item.path) for item in slices], axis=-1), affine


def place_slices(series: Series) -> tuple[list[Slice], Array]:
    """Return single-frame slices in the order of the array's Z axis, and the affine; no pixels are read."""
    for item in series.slices:
        _check_alike(item, series.slices[0])
    row, column = np.split(series.slices[0].orientation, 2)
    normal = np.cross(row, column)
    slices = sorted(series.slices, key=lambda item: float(normal @ item.position))
    first, last = slices[0], slices[-1]
    if len(slices) > 1:
        _check_steps(slices, np.diff([normal @ item.position for item in slices]))
        step = (last.position - first.position) / (len(slices) - 1)
    elif first.thickness > 0:
        step = normal * first.thickness
    else:
        raise bad_file(first.path, "The only slice has no thickness", "none", "a length in mm")
    axes = np.stack([row * first.spacing[1], column * first.spacing[0], step], axis=1)
    affine = ras_affine(axes, first.position)
    check_affine(affine, first.path)
    return slices, affine


def _check_alike(item: Slice, first: Slice) -> None:
    if item.position is None or item.orientation is None or item.spacing is None or min(item.spacing) <= 0:
        what, lacking = (
            "The DICOM slice has no place in space",
            "no position, orientation or pixel spacing above 0",
        )
        do = "export the series again; scanned films and screenshots cannot be used"
        raise bad_file(item.path, what, lacking, None, do)
    for name in ("size", "orientation", "spacing"):
        found, wanted = (np.asarray(getattr(one, name)) for one in (item, first))
        if not np.allclose(found, wanted, rtol=0 if name == "size" else _SAME, atol=_SAME):
            what = f"The slices of the series do not belong together: another {name}"
            do = "move the slices of the other acquisition to a folder of their own"
            shown, right = (" ".join(f"{number:g}" for number in numbers) for numbers in (found, wanted))
            raise bad_file(item.path, what, shown, f"{right} as in {first.path.name}", do)


def _check_steps(slices: Sequence[Slice], steps: Array) -> None:
    apart = steps[steps >= _SAME]
    usual = float(np.median(apart)) if apart.size else 0.0
    odd = np.flatnonzero((steps < _SAME) | (np.abs(steps - usual) > _SAME_STEP * usual))
    if odd.size:
        before, after = slices[odd[0]].path, slices[odd[0] + 1].path
        found = f"{steps[odd[0]]:.6g} mm between {before.name} and {after.name}"
        expected = f"{usual:.6g} mm, as between others of the {len(slices)} slices"
        expected = expected if apart.size else "slices at different positions"
        do = "export all slices again; move copies and other phases to a folder of their own"
        raise bad_file(after, "Slices are missing, twice there or unevenly spaced", found, expected, do)


@guarded
def series_of(path: Path) -> Series:
    """Return a multi-frame file as a series; a slice of a series is refused."""
    if not path.is_file():
        raise unreadable(path, FileNotFoundError(path), "DICOM", "")
    found = Slice.read(path)
    if found.frames == 1:
        named = " ".join(filter(None, ("series", found.number, found.description)))
        expected = "a volume: the folder of a series, or a multi-frame file"
        do = f"name the folder: {path.parent}"
        raise bad_file(path, "The file is a single DICOM slice", named, expected, do)
    return Series((found,))


def _pixels(path: Path) -> Array:
    """Return (X, Y) of one slice in the unit of its modality, float32."""
    dataset, pixels = read_dataset(path), dicom_package("pydicom.pixels", path)
    kind = dataset.get("PhotometricInterpretation")
    if dataset.get("SamplesPerPixel", 1) != 1 or kind == "PALETTE COLOR":
        raise bad_file(path, "The DICOM slice is a color picture", kind, "one value a pixel")
    try:
        values = pixels.apply_modality_lut(dataset.pixel_array, dataset)
        if values.ndim != 2:
            raise ValueError(f"pixels of shape {values.shape}")
        return np.asarray(values, np.float32).T
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        if "missing dependencies" in str(error):
            what = "The DICOM file is compressed in a way that needs another package"
            do = "install one of these packages with pip, or export the series without compression"
            raise bad_file(path, what, error, None, do) from error
        raise unreadable(path, error, "DICOM", "a whole DICOM file") from error


def multiframe_volume(series: Series) -> Any:
    """Read a multi-frame file as a highdicom volume; its axes are those of the array in reverse order."""
    path = series.path
    if len(series.slices) > 1:
        raise bad_file(path, "The series has several multi-frame files", len(series.slices), "one")
    highdicom = dicom_package("highdicom", path)
    try:
        volume = highdicom.imread(path).get_volume(dtype=np.float32)
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        raise unreadable(path, error, "a multi-frame DICOM image", "a regular stack of frames") from error
    if volume.array.ndim != 3:
        raise bad_file(path, "The DICOM file is a color picture", volume.array.shape, "one value a voxel")
    if np.linalg.det(volume.affine[:3, :3][:, ::-1]) < 0:  # highdicom stacks frames downwards
        volume = volume.flip_spatial(0)
    return volume


def volume_affine(volume: Any) -> Array:
    """Return the affine (RAS+) of a highdicom volume for its array with reversed axes."""
    return ras_affine(volume.affine[:3, :3][:, ::-1], volume.affine[:3, 3])


@guarded
def segments(path: Path) -> dict[str, int]:
    """Return name and number of the segments of a DICOM-SEG file, the background left out."""
    return _segment_names(_open_seg(path), path)


def read_segments(path: Path, values: Mapping[str, int], like: Volume) -> Array:
    """Read segments as `values` by name onto the grid of an image, (X, Y, Z) int32.

    Segments that are not named are left out, names that the file does not have, too. Frames may be missing
    (nothing is marked there), and stored in another order.
    """
    volume = _read_seg(path, values)
    return onto_grid(volume, like, path) if volume else np.zeros(like.array.shape[-3:], np.int32)


@guarded
def _read_seg(path: Path, values: Mapping[str, int]) -> Volume | None:
    """Read segments onto the grid of their own file; None if it has none of them."""
    file = _open_seg(path)
    names = _segment_names(file, path)
    numbers = {number: values[name] for name, number in names.items() if name in values}
    if not numbers:
        return None
    try:
        volume = file.get_volume(segment_numbers=sorted(numbers), combine_segments=True)
    except Exception as error:  # probabilities; overlap; or whatever the parser meets in a damaged file
        what, expected = "The segments make no label map", "binary segments on a regular stack of planes"
        do = "import segments that do not overlap, --class NAME=VALUE for each; save probabilities as binary"
        raise bad_file(path, what, shortened_text(error), expected, do) from error
    raw = np.asarray(volume.array).T
    wanted = np.zeros(raw.shape, np.int32)
    for number, value in numbers.items():
        wanted[raw == number] = value
    return Volume(wanted, volume_affine(volume))


def _open_seg(path: Path) -> Any:
    highdicom = dicom_package("highdicom", path)
    try:
        return highdicom.seg.segread(path)
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        raise unreadable(path, error, "DICOM-SEG", "a whole DICOM segmentation object") from error


def _segment_names(file: Any, path: Path) -> dict[str, int]:
    numbers = [int(number) for number in file.segment_numbers if number != 0]  # 0: background of a label map
    labels = [str(file.get_segment_description(number).segment_label).strip() for number in numbers]
    if len(set(labels)) < len(labels):
        raise bad_file(path, "Two segments have the same name", ", ".join(labels), None, "rename one")
    return dict(zip(labels, numbers, strict=True))
