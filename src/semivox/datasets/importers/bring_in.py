"""Bring a data set in: index NIfTI layouts where they are, convert everything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from semivox.datasets.dataset import Dataset, is_index, open_dataset, write_index
from semivox.datasets.declared import read_ending
from semivox.datasets.importers import finders
from semivox.datasets.importers.convert import convert
from semivox.datasets.importers.published import RECIPES, find_published
from semivox.datasets.importers.source import Found, class_table
from semivox.errors import UserError, shortened
from semivox.files import read_json, read_text
from semivox.io.dicom_series import holds_dicom
from semivox.io.formats import ENDINGS, ITK_ENDINGS
from semivox.manifest import Manifest
from semivox.progress import Progress

_FINDERS: dict[str, Callable[..., Found]] = {
    "pairs": finders.find_pairs,
    "csv": finders.find_table,
    "h5": finders.find_h5,
    "dicom": finders.find_dicom,
    "file": finders.find_single,
    "nnunet": finders.find_nnunet,
    **{name: partial(find_published, name) for name in RECIPES},
}


def import_dataset(
    source: Path, out: Path, *, kind: str = "auto", progress: Progress = lambda *_: None, **options: Any
) -> Dataset:
    """Make `out` a data set folder that `open_dataset` reads.

    Scans in nnU-Net raw or MSD form with NIfTI files stay where they are, and an index is written. Everything
    else becomes NIfTI in nnU-Net raw form. `kind` is the layout of `source` (a folder, a table or a file), or
    a published data set; "auto" finds a layout. `options` are those of `semivox.import_dataset`; the ones
    that the layout has no use for are refused.
    """
    if source.resolve() == out.resolve():
        raise UserError("The import would overwrite its source", None, "another output folder", path=source)
    layout = _layout(source, kind, options)
    own = {} if layout == "index" else _arguments(_FINDERS[layout], options)
    told = {} if layout in ("index", "nnunet", *RECIPES) else _arguments(_told, options)
    lists = _arguments(_listed, options) if told and layout != "file" else {}
    useless = [name for name in options if name not in own | told | lists]
    if useless and source.exists():
        from_file = "; dataset.json declares channels, classes and a value to ignore"
        do = "leave them out" + (from_file if layout in ("index", "nnunet") else "")
        raise UserError("Options without a meaning here", shortened(useless), None, do, source)
    if layout == "index":
        return _index(source, out)
    wanted = "file" if layout in ("csv", "file") else "folder"
    if not (source.is_file() if wanted == "file" else source.is_dir()):
        raise UserError(f"The source is no {wanted}", None, f"a {wanted} for {layout}", path=source)
    found = _FINDERS[layout](source, **own)
    found = _listed(found, source if source.is_dir() else source.parent, **lists) if lists else found
    found = _told(found, **told) if told else found
    names = ("raw", "recipe") if layout in RECIPES else ("source", "kind")
    settings = {**dict(zip(names, (source.resolve(), layout), strict=True)), **own, **told, **lists}
    record = json.loads(json.dumps(settings, default=str))  # as the record of an earlier import has them
    return convert(found, source, out, record, progress)


def _arguments(function: Callable[..., Found], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a function, from the options where they are given."""
    parameters = signature(function).parameters.values()
    return {it.name: options.get(it.name, it.default) for it in parameters if it.kind == it.KEYWORD_ONLY}


def _layout(source: Path, kind: str, options: Mapping[str, Any]) -> str:
    """Tell the layout of a source by what is on disk; "index" is nnU-Net raw or MSD in NIfTI."""
    path, name = source / "dataset.json", source.name.lower()
    if kind not in ("auto", "nnunet", "msd"):
        return kind
    if kind == "auto" and source.is_file():
        if not name.endswith((*ENDINGS, ".csv")):
            what, expected = "The file is of no format that can be imported", ", ".join(ENDINGS) + " or .csv"
            raise UserError(what, source.name, expected, "convert it to NIfTI", source)
        return "csv" if name.endswith(".csv") else "file"
    if kind == "auto" and options.get("images"):
        return "pairs"
    if path.is_file():
        meta = read_json(path)
        is_itk = isinstance(meta, dict) and read_ending(meta, path, any_format=True) in ITK_ENDINGS
        return "nnunet" if is_itk else "index"
    if kind == "auto" and source.is_dir():
        return "h5" if any(finders.h5_files(source)) else "dicom" if holds_dicom(source) else "pairs"
    return "index"


def _index(source: Path, out: Path) -> Dataset:
    """Write the index of a data set whose scans stay where they are."""
    dataset = open_dataset(source)
    before = read_json(out / "dataset.json")["root"] if is_index(out) else dataset.root
    if (out / before).resolve() != dataset.root:
        what, do = "The output folder holds the index of another source", "choose another output folder"
        raise UserError(what, before, dataset.root, do, out)
    Manifest(out).claim("dataset.json")
    write_index(dataset, out)
    return open_dataset(out)


def _told(
    found: Found,
    *,
    channels: Sequence[str] = (),
    classes: Mapping[str, int] | None = None,
    ignore: int | None = None,
) -> Found:
    """Add what the user says: names and values of classes, the value of voxels that are not annotated."""
    known = class_table(found.cases, classes or {})
    return replace(found, channels=tuple(channels) or found.channels, classes=known, ignore=ignore)


def _listed(
    found: Found, folder: Path, *, train_list: Path | None = None, test_list: Path | None = None
) -> Found:
    """Take test cases and order from lists: those given, else `train.list` and `test.list`.

    These are looked for in the folder of the source or beside it, and may then name more cases than are
    there: parts of published sets are common.
    """
    train, test = _read_list(folder, "train.list", train_list), _read_list(folder, "test.list", test_list)
    names = {case.name for case in found.cases if case.pool == "train"}
    given = {*(train if train_list else ()), *(test if test_list else ())}
    for what, wrong in (
        ("Cases are in both lists", {*train} & {*test}),
        ("Cases are in neither list", names - {*train, *test} if train else set()),
        ("Cases of the list have no image", given - {case.name for case in found.cases}),
    ):
        if wrong:
            raise UserError(what, shortened(sorted(wrong), 5), None, "correct the lists", folder)
    cases = [replace(case, pool="test") if case.name in test else case for case in found.cases]
    return replace(found, cases=cases, order=train or found.order)


def _read_list(folder: Path, name: str, given: Path | None) -> tuple[str, ...]:
    """Read case names, one a line, also in the forms CASE/mri_norm2.h5 and CASE.h5; () without a file."""
    beside = (folder / name, folder.resolve().parent / name)
    path = given or next(filter(Path.is_file, beside), None)
    lines = read_text(path).splitlines() if path else ()
    names = (line.strip().removesuffix("/mri_norm2.h5").removesuffix(".h5") for line in lines)
    return tuple(dict.fromkeys(filter(None, names)))
