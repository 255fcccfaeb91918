"""A folder of DICOM: each subfolder a case, its image series and, if there is one, its DICOM-SEG."""

from __future__ import annotations

from pathlib import Path

from semivox.datasets.importers.labels import LabelFile
from semivox.datasets.importers.pairs import Entry, found_of
from semivox.datasets.importers.source import Found, ImportOptions, read_lists
from semivox.errors import UserError
from semivox.io.dicom_series import case_folders, choose_series, find_series, holds_dicom, list_series


def find_dicom(source: Path, options: ImportOptions) -> Found:
    """Take one image series of each folder in `source` (or of `source` itself, if it holds the slices)."""
    folders = case_folders(source)
    if not any(map(holds_dicom, folders)):
        expected = "a DICOM series a folder"
        raise UserError("The folder holds no DICOM files", None, expected, "check the path", source)
    lists = read_lists(source, options, {folder.name for folder in folders})
    entries, modalities = [], []
    for folder in folders:
        series = choose_series(find_series(folder), options.series, folder)
        labels = find_series(folder, segmentations=True)
        if len(labels) > 1:
            what = "There are several DICOM-SEG objects"
            raise UserError(what, list_series(labels), "one a case", "keep one of them in the folder", folder)
        files = tuple(LabelFile(item.path) for item in labels)
        modalities.append(series.slices[0].modality)
        entries.append(Entry(folder.name, lists.pool(folder.name), (series,), files))
    description = f"Imported from the DICOM series of {source.resolve().name}"
    return found_of(entries, options.channels or (modalities[0],), options, description, lists.order)
