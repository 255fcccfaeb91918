"""nnU-Net raw folders whose files are NRRD or MetaImage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from semivox.datasets.declared import read_channels, read_classes, read_ignore, read_region_labels
from semivox.datasets.importers.found import Found
from semivox.datasets.importers.labels import LabelFile
from semivox.datasets.importers.options import ImportOptions
from semivox.datasets.importers.pairs import Entry, found_of
from semivox.datasets.layouts import nnunet_cases
from semivox.datasets.regions import read_regions
from semivox.files import read_json


def find_nnunet(source: Path, _: ImportOptions) -> Found:
    """Find the cases as `dataset.json` declares them, with channels and classes as there."""
    meta = read_json(source / "dataset.json")
    path = source / "dataset.json"
    channels = read_channels(meta, path)
    names, values = read_classes(meta, path)
    entries: list[Entry] = [
        (case.name, case.pool, case.images, (LabelFile(case.label),) if case.label else ())
        for case in nnunet_cases(meta, source, channels, any_format=True)
    ]
    declared = ImportOptions(classes=dict(zip(names[1:], values[1:], strict=True)))
    found = found_of(entries, channels, declared, str(meta.get("description", "")))
    regions = read_regions(read_region_labels(meta) or None, names, values, path)
    return replace(found, ignore=read_ignore(meta, path), regions=regions)
