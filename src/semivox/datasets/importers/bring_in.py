"""Bring a data set in: index NIfTI layouts where they are, convert everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from semivox.datasets.dataset import Dataset, is_index, open_dataset, write_index
from semivox.datasets.declared import read_ending
from semivox.datasets.importers import finders
from semivox.datasets.importers.convert import convert
from semivox.datasets.importers.crops import PREPARATIONS
from semivox.datasets.importers.published import find_published
from semivox.datasets.importers.source import Found, ImportOptions
from semivox.errors import UserError, shortened
from semivox.files import read_json
from semivox.io.dicom_series import holds_dicom
from semivox.io.formats import ENDINGS, ITK_ENDINGS
from semivox.manifest import Manifest
from semivox.progress import Progress

_FINDERS: dict[str, Callable[[Path, ImportOptions], Found]] = {
    "nnunet": finders.find_nnunet,
    "pairs": finders.find_pairs,
    "csv": finders.find_table,
    "h5": finders.find_h5,
    "dicom": finders.find_dicom,
    "file": finders.find_single,
}
_ALWAYS = ("channels", "classes", "ignore")
_LISTED = (*_ALWAYS, "train_list", "test_list")
_TAKES: dict[str, tuple[str, ...]] = {  # options that a layout has a use for
    "index": (),
    "nnunet": ("ignore",),
    "pairs": ("images", "labels", "series", *_LISTED),
    "csv": ("root", "series", *_LISTED),
    "h5": ("spacing_mm", *_LISTED),
    "dicom": ("series", *_LISTED),
    "file": ("labels", *_ALWAYS),
    **dict.fromkeys(PREPARATIONS, ("crop", "split")),
}


def import_dataset(
    source: Path,
    out: Path,
    *,
    kind: str = "auto",
    ignore: int | None = None,
    crop: str | None = None,
    split: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """Make `out` a data set folder that `open_dataset` reads.

    nnU-Net raw and MSD with NIfTI files: an index is written, the scans stay where they are. Everything
    else (image and label pairs by pattern, a CSV table, h5, DICOM, single files, nnU-Net raw with NRRD or
    MetaImage) becomes NIfTI in nnU-Net raw form.

    `kind` is the layout of `source` (a folder, a table or a file), or a published data set, whose cases get
    the order and the test cases of a published split, and which alone has `crop` and `split`; "auto" finds a
    layout. `options` are those of `ImportOptions`, see `semivox.import_dataset`. One that the layout has no
    use for is refused.
    """
    if source.resolve() == out.resolve():
        do = "choose another output folder"
        raise UserError("The import would overwrite its source", source, "another folder", do, source)
    layout, chosen = _layout(source, kind, options), ImportOptions(**options)
    given = {**options, "ignore": ignore, "crop": crop, "split": split}
    useless = [name for name, value in given.items() if value is not None and name not in _TAKES[layout]]
    if useless and source.exists():
        from_file = "; dataset.json declares channels, classes and a value to ignore"
        do = "leave them out" + (from_file if layout in ("index", "nnunet") else "")
        raise UserError("Options without a meaning here", shortened(useless), None, do, source)
    if layout == "index":
        return _index(source, out)
    wanted = "file" if layout in ("csv", "file") else "folder"
    if not (source.is_file() if wanted == "file" else source.is_dir()):
        raise UserError(f"The source is no {wanted}", None, f"a {wanted} for {layout}", path=source)
    if layout in PREPARATIONS:
        found = find_published(layout, source, crop, split)
        settings: dict[str, Any] = {
            "recipe": layout,
            "raw": source.resolve(),
            "crop": crop or "none",
            "split": split,
        }
    else:
        found = _FINDERS[layout](source, chosen)
        settings = {"source": source.resolve(), "kind": layout, "ignore": ignore, **asdict(chosen)}
    if ignore is not None:
        found = replace(found, ignore=ignore)
    record = json.loads(json.dumps(settings, default=str))  # as the record of an earlier import has them
    return convert(found, source, out, record, layout if layout in PREPARATIONS else None, progress)


def _layout(source: Path, kind: str, options: dict[str, Any]) -> str:
    """Tell the layout of a source by what is on disk; "index" is nnU-Net raw or MSD in NIfTI."""
    path = source / "dataset.json"
    if kind not in ("auto", "nnunet", "msd"):
        return kind
    if kind == "auto" and source.is_file():
        if source.suffix.lower() != ".csv" and not source.name.lower().endswith(ENDINGS):
            what, expected = "The file is of no format that can be imported", ", ".join(ENDINGS) + " or .csv"
            raise UserError(what, source.name, expected, "convert it to NIfTI", source)
        return "csv" if source.suffix.lower() == ".csv" else "file"
    if kind == "auto" and options.get("images"):
        return "pairs"
    if kind == "auto" and source.is_dir() and not path.is_file():
        if any(finders.h5_files(source)):
            return "h5"
        return "dicom" if holds_dicom(source) else "pairs"
    meta = read_json(path) if path.is_file() else {}
    is_itk = isinstance(meta, dict) and read_ending(meta, path, any_format=True) in ITK_ENDINGS
    return "nnunet" if is_itk else "index"


def _index(source: Path, out: Path) -> Dataset:
    """Write the index of a data set whose scans stay where they are."""
    dataset = open_dataset(source)
    if is_index(out):
        root = (out / read_json(out / "dataset.json")["root"]).resolve()
        if root != dataset.root:
            what, do = "The output folder holds the index of another source", "choose another output folder"
            raise UserError(what, root, dataset.root, do, out)
    Manifest(out).claim("dataset.json")
    write_index(dataset, out)
    return open_dataset(out)
