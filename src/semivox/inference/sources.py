"""Which scans a file, a folder or an object in memory holds."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semivox.datasets.dataset import Dataset
from semivox.datasets.splits import Split, load_split, split_by_files
from semivox.errors import UserError
from semivox.io.dicom import series_of
from semivox.io.dicom_series import Series, case_folders, choose_series, find_series, holds_dicom
from semivox.io.formats import DICOM_ENDINGS, ITK_ENDINGS, NIFTI_ENDINGS, stem
from semivox.io.geometry import affine_text, is_degenerate
from semivox.io.volume import Volume, read_image
from semivox.preprocessing.plan import Plan

ENDINGS = (*NIFTI_ENDINGS, *ITK_ENDINGS)
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class Scan:
    """A scan to segment."""

    name: str  # of the results
    files: tuple[Path, ...]  # one a channel, or a single file with all channels; or the slices of `series`
    series: Series | None = None  # the DICOM series that the scan is


def find_scans(source: Path, channels: int, series: str | None = None) -> list[Scan]:
    """List the scans of a file or folder, sorted by name.

    `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, ... are the channels of CASE (NRRD and MetaImage likewise).
    Numbered files without a number 0000 are scans of their own. A single file stands for all channels of its
    case when the model has several. A folder of DICOM is a scan, named as the folder; if all its DICOM lies
    in subfolders, each of these is a scan.

    Raises:
        UserError: no such file, no scans in the folder, or two files of the same name; several DICOM series
            of which `series` does not choose one.
    """
    if source.is_dir():
        files = _image_files(source)
        if series is not None or (not files and holds_dicom(source)):
            return _dicom_scans(source, series)
        slices = [item.name for item in source.iterdir() if item.name.lower().endswith(DICOM_ENDINGS)]
        if files and slices:
            found = f"DICOM ({min(slices)}, ...) and {min(files).name}"
            do = "name the one file to segment; or choose the DICOM series: --series NUMBER"
            raise UserError("The folder holds scans of two kinds", found, "one kind", do, source)
        return _group(files, source)
    name = source.name.lower()
    if source.is_file() and name.endswith(DICOM_ENDINGS):
        return [Scan(stem(source), (source,), series_of(source))]
    if not source.is_file() or not name.endswith(ENDINGS):
        found = "another kind of file" if source.is_file() else "no such file or folder"
        expected = f"a file ({', '.join(ENDINGS)}), a folder of them, or a folder with DICOM series"
        raise UserError("There is no scan here", found, expected, "check the path", source)
    siblings = _group(_image_files(source.parent), source.parent) if channels > 1 else []
    alone = Scan(stem(source).removesuffix("_0000"), (source,))
    return [scan for scan in siblings if source in scan.files] or [alone]


def read_scan(scan: Scan, *, trust_image_geometry: bool = False) -> Volume:
    """Read all channels of a scan; on request with the first one's affine, whatever the others say.

    Raises:
        UserError: a channel file that is missing or cannot be read; a DICOM series that is no volume.
    """
    if scan.series is not None:
        return read_image([scan.series])
    names = [stem(file) for file in scan.files]
    expected = [f"{scan.name}_{index:04}" for index in range(len(names))]
    if len(names) > 1 and names[0] == expected[0] and names != expected:
        what, folder = "A channel of the scan is missing", scan.files[0].parent
        raise UserError(what, ", ".join(names), ", ".join(expected), "add the missing file", folder)
    return read_image(scan.files, trust_image_geometry=trust_image_geometry)


def _group(files: Sequence[Path], folder: Path) -> list[Scan]:
    """Make scans of the files of a folder, those numbered from 0000 on by the case that they belong to."""
    first_channels = {stem(file).removesuffix("_0000") for file in files if stem(file).endswith("_0000")}
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files):
        match = _CHANNEL.fullmatch(stem(file))
        groups[match["case"] if match and match["case"] in first_channels else stem(file)].append(file)
    for name, members in groups.items():
        stems = [stem(file) for file in members]
        if len(set(stems)) < len(stems) or (name in stems and len(stems) > 1):
            found, do = ", ".join(f.name for f in members), f"keep {name}.nii.gz, or {name}_0000.nii.gz etc."
            raise UserError("Several files have the name of one scan", found, do=do, path=folder)
    if not groups:
        inner = sorted(item for item in folder.iterdir() if item.is_dir() and _image_files(item))
        found = "no file in NIfTI, NRRD, MetaImage or DICOM"
        expected = "CASE.nii.gz, or CASE_0000.nii.gz for each channel; or DICOM series"
        do = f"name the folder that holds them, e.g. {inner[0]}" if inner else "check the path"
        raise UserError("There are no scans in this folder", found, expected, do, folder)
    return [Scan(name, tuple(members)) for name, members in sorted(groups.items())]


def _dicom_scans(source: Path, wanted: str | None) -> list[Scan]:
    """Take one series of each folder; pass over folders with nothing but DICOM-SEG objects."""
    folders = case_folders(source)
    scans = []
    for folder in folders:
        found = find_series(folder)
        if not found and len(folders) > 1 and find_series(folder, segmentations=True):
            continue
        series = choose_series(found, wanted, folder)
        scans.append(Scan(folder.resolve().name, series.files, series))
    if not scans:
        choose_series([], wanted, source)
    return scans


def _image_files(folder: Path) -> list[Path]:
    """Scans, dangling links too, but no hidden files such as the `._CASE.nii.gz` of some archives."""
    return [
        item
        for item in folder.iterdir()
        if item.name.lower().endswith(ENDINGS) and not item.name.startswith(".") and not item.is_dir()
    ]


def split_of(run: Path, plan: Plan, dataset: Dataset) -> Split:
    """Return the split of a run; cases that it does not know and that have no label file are unlabeled, too.

    In a folder without `splits.json` the data set's label files decide.

    Raises:
        UserError: the data set has other classes or channels than the plan of the run.
    """
    trained, found = (
        f"classes {', '.join(one.class_names)} with values {', '.join(map(str, one.class_values))};"
        f" channels {', '.join(one.channels)}"
        for one in (plan, dataset)
    )
    if found != trained:
        do = "name the data set of the model's training"
        raise UserError("The model was trained on another data set", found, trained, do, dataset.root)
    path = run / "splits.json"
    try:
        split = load_split(path, dataset, 0) if path.is_file() else split_by_files(dataset)
    except UserError as error:
        do = "add the missing cases, or name the data set of the model's training"
        raise UserError("The data set does not fit the run's split", error.what, do=do, path=path) from error
    known = split.roles()
    others = (case for case in dataset.cases if case.pool != "test" and case.label is None)
    new = [case.name for case in others if case.name not in known]
    return split.model_copy(update={"unlabeled": (*split.unlabeled, *new)})


def as_volume(image: Any) -> Volume:
    """Turn an image into a `Volume` `(C, X, Y, Z)`.

    It is a path; a nibabel image `(X, Y, Z)` or `(X, Y, Z, C)`; a SimpleITK image, also with several
    components; or an array `(X, Y, Z)` or `(C, X, Y, Z)` with its affine `(4, 4)` to mm, RAS axes.

    Raises:
        UserError: anything else, no real numbers, another number of axes, an affine that spans no space.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image([Path(image)])
    channels_last = True
    if isinstance(image, (tuple, list)) and len(image) == 2:
        (values, affine), channels_last = image, False
    elif hasattr(image, "dataobj") and getattr(image, "affine", None) is not None:
        values, affine = image.dataobj, image.affine
    elif hasattr(image, "GetDirection") and image.GetDimension() == 3:
        from semivox.io.itk import voxels_of  # SimpleITK takes long to import

        values, affine = voxels_of(image)
    else:
        shape = f" of shape {image.shape}" if hasattr(image, "shape") else ""
        raise _no_scan(type(image).__name__ + shape)
    array, affine = _numbers(values, np.float32), _numbers(affine, np.float64)
    if array.ndim not in (3, 4) or array.size == 0:
        raise _no_scan(f"an array of shape {array.shape}")
    if affine.shape != (4, 4) or is_degenerate(affine):
        text = affine_text(affine) if affine.shape == (4, 4) else f"of shape {affine.shape}"
        raise _no_scan(f"a degenerate affine: {text}")
    if array.ndim == 3:
        return Volume(array[None], affine)
    return Volume(np.moveaxis(array, -1, 0) if channels_last else array, affine)


def _numbers(values: Any, dtype: type[np.floating[Any]]) -> Any:
    """Convert to an array of floats; complex numbers, text and objects are refused."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_scan(error) from error
    if array.dtype.kind not in "biuf":
        raise _no_scan(f"{array.dtype}, no real numbers")
    return array.astype(dtype, copy=False)


def _no_scan(found: object) -> UserError:
    expected = "a path, a 3D nibabel or SimpleITK image, or (array, affine): numbers (X, Y, Z) or"
    expected += " (C, X, Y, Z), and (4, 4) to mm with three independent axes"
    do = "for an array: (array, affine), with e.g. nibabel's image.affine"
    return UserError("This is not a scan with a place in space", found, expected, do)
