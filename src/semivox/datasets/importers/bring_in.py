"""Bring a data set in: index NIfTI layouts where they are, convert everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from semivox.datasets.dataset import Dataset, is_index, open_dataset, write_index
from semivox.datasets.declared import read_ending
from semivox.datasets.importers.convert import convert
from semivox.datasets.importers.h5 import find_h5, h5_files
from semivox.datasets.importers.pairs import find_dicom, find_nnunet, find_pairs, find_single, find_table
from semivox.datasets.importers.recipes.published import RecipeOptions, find_published
from semivox.datasets.importers.recipes.sets import RECIPES
from semivox.datasets.importers.source import Found, ImportOptions, plain
from semivox.errors import UserError, shortened
from semivox.files import read_json
from semivox.io.dicom_series import holds_dicom
from semivox.io.formats import ENDINGS, ITK_ENDINGS
from semivox.manifest import Manifest
from semivox.progress import Progress

_FINDERS: dict[str, Callable[[Path, ImportOptions], Found]] = {
    "nnunet": find_nnunet,
    "pairs": find_pairs,
    "csv": find_table,
    "h5": find_h5,
    "dicom": find_dicom,
    "file": find_single,
}


def import_dataset(
    source: Path,
    out: Path,
    *,
    kind: str = "auto",
    ignore: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """Make `out` a data set folder that `open_dataset` reads.

    nnU-Net raw and MSD with NIfTI files: an index is written, the scans stay where they are. Everything
    else (image and label pairs by pattern, a CSV table, h5, DICOM, single files, nnU-Net raw with NRRD or
    MetaImage) becomes NIfTI in nnU-Net raw form.

    `kind` is the layout of `source` (a folder, a table or a file), or a published data set, whose cases get
    the order and the test cases of a published split; "auto" finds a layout. `options` are those of
    `ImportOptions` or `RecipeOptions`, see `semivox.import_dataset`.
    """
    if source.resolve() == out.resolve():
        do = "choose another output folder"
        raise UserError("The import would overwrite its source", source, "another folder", do, source)
    known = [field.name for field in fields(RecipeOptions if kind in RECIPES else ImportOptions)]
    if useless := [name for name in options if name not in known]:
        what = "Options without a meaning here"
        raise UserError(what, shortened(useless), f"with this source: {shortened(known)}", "leave them out")
    if kind in RECIPES:
        _check_source(source, kind)
        recipe = RecipeOptions(**options)
        found = find_published(RECIPES[kind](recipe.crop == "none"), source, recipe)
        settings = {"recipe": kind, "raw": str(source.resolve()), **plain(recipe)}
        return convert(found, out, settings=settings, ignore=ignore, name=kind, progress=progress)
    chosen = ImportOptions(**options)
    layout = _layout(source, chosen) if kind == "auto" else kind
    if layout in ("nnunet", "msd"):
        path = source / "dataset.json"
        meta = read_json(path) if path.is_file() else {}
        if not isinstance(meta, dict) or read_ending(meta, path, any_format=True) not in ITK_ENDINGS:
            return _index(source, out)
        layout = "nnunet"
    _check_source(source, layout)
    settings = {"source": str(source.resolve()), "kind": layout, "ignore": ignore, **plain(chosen)}
    found = _FINDERS[layout](source, chosen)
    return convert(found, out, settings=settings, ignore=ignore, progress=progress)


def _layout(source: Path, options: ImportOptions) -> str:
    """Tell the layout of a source by what is on disk; a `dataset.json` describes nnU-Net raw or MSD."""
    if source.is_file():
        return "csv" if source.suffix.lower() == ".csv" else "file"
    if options.images:
        return "pairs"
    if source.is_dir() and not (source / "dataset.json").is_file():
        if h5_files(source):
            return "h5"
        if holds_dicom(source):
            return "dicom"
    return "nnunet"


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


def _check_source(source: Path, layout: str) -> None:
    wanted = "file" if layout in ("csv", "file") else "folder"
    if not (source.is_file() if wanted == "file" else source.is_dir()):
        raise UserError(
            f"The source is no {wanted}", None, f"a {wanted} for {layout}", "check the path", source
        )
    if layout == "file" and not source.name.lower().endswith(ENDINGS):
        what, expected = "The file is of no format that can be imported", ", ".join(ENDINGS) + " or .csv"
        raise UserError(what, source.name, expected, "convert it to NIfTI", source)
