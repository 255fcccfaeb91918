"""A folder of DICOM: each subfolder a case, its image series and, if there is one, its DICOM-SEG."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semivox.datasets.importers.labels import LabelFile, assemble, class_table
from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, Loaded, read_lists
from semivox.errors import UserError
from semivox.io.dicom import read_series
from semivox.io.dicom_series import Series, choose_series, find_series, list_series
from semivox.io.formats import bad_file
from semivox.io.volume import Volume


def find_dicom(source: Path, options: ImportOptions) -> Found:
    """Take one image series of each folder in `source` (or of `source` itself, if it holds the slices).

    Raises:
        UserError: no series in a folder, or several of which `options.series` chooses none or more than one;
            several DICOM-SEG objects; and what reading a series says.
    """
    folders = case_folders(source)
    if not any(map(holds_dicom, folders)):
        raise UserError(
            "The folder holds no DICOM files", None, "a DICOM series a folder", "check the path", source
        )
    lists = read_lists(source, options, {folder.name for folder in folders})
    chosen: list[tuple[Path, Series, tuple[LabelFile, ...]]] = []
    for folder in folders:
        series = choose_series(find_series(folder), options.series, folder)
        labels = find_series(folder, segmentations=True)
        if len(labels) > 1:
            what, do = "There are several DICOM-SEG objects", "keep one of them in the folder"
            raise UserError(what, list_series(labels), "one a case", do, folder)
        chosen.append((folder, series, tuple(LabelFile(item.slices[0].path) for item in labels)))
    classes = class_table((file for _, _, files in chosen for file in files), options.classes)
    cases = tuple(
        CaseSource(
            folder.name,
            lists.pool(folder.name),
            bool(labels),
            partial(_load, series, labels, classes),
            (*(item.path for item in series.slices), *(file.path for file in labels)),
        )
        for folder, series, labels in chosen
    )
    channels = options.channels or (chosen[0][1].slices[0].modality,)
    description = f"Imported from the DICOM series of {source.resolve().name}"
    return Found(cases, channels, classes, description, lists.order)


def case_folders(source: Path) -> list[Path]:
    """Return the folders of the cases: those in `source` that hold DICOM, or `source` if files lie in it."""
    inner = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    own = [path for path in source.iterdir() if path.is_file()]
    if any(_has_magic(path) for path in own) or not inner:
        return [source]
    return [folder for folder in inner if holds_dicom(folder)]


def holds_dicom(folder: Path) -> bool:
    """Whether any file below a folder is DICOM."""
    return any(_has_magic(path) for path in folder.rglob("*"))


def _has_magic(path: Path) -> bool:
    if not path.is_file() or path.name.startswith("."):
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def load_volume(series: Series) -> Volume:
    """Read a series as an image (1, X, Y, Z) float32."""
    voxels, affine = read_series(series)
    array = np.ascontiguousarray(voxels, np.float32)[None]
    if not np.isfinite(array).all():
        path = series.slices[0].path.parent
        raise bad_file(path, "The image holds values that are not finite", "NaN", "finite numbers")
    return Volume(array, affine)


def _load(series: Series, labels: tuple[LabelFile, ...], classes: dict[str, int] | None) -> Loaded:
    image = load_volume(series)
    return Loaded(image, assemble(labels, image, classes) if labels else None)
