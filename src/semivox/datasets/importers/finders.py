"""Find cases by patterns of their paths, in tables, h5 files, DICOM folders, single files, nnU-Net raw.

Nothing is read but names and headers. A finder's keyword arguments are the options of its layout.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

from semivox.datasets.case import Pool, missing_image
from semivox.datasets.dataset import open_dataset
from semivox.datasets.importers.source import CaseSource, Found
from semivox.errors import UserError, shortened, unknown
from semivox.files import read_json, read_text
from semivox.io.dicom_series import Series, case_folders, choose_series, find_series, list_series
from semivox.io.formats import ENDINGS, stem

_WILD = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]", "{case}": "(?P=case)"}
_POOLS: dict[str, Pool] = {
    **dict.fromkeys(("", "train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("unlabeled", "extra"), "extra"),
}


def find_pairs(
    source: Path, *, images: Sequence[str] = (), labels: Sequence[str] = (), series: str | None = None
) -> Found:
    """Find images and labels by patterns relative to `source`, `[NAME=]PATTERN`, see `match_paths`."""
    paths = visible_paths(source)
    channels, masks = (
        [(name, pattern, match_paths(paths, pattern, source)) for name, pattern in map(_split_name, texts)]
        for texts in (images, labels)
    )
    named, masked = ({case for *_, files in parts for case in files} for parts in (channels, masks))
    if not named:
        there = shortened([name for name, path in paths.items() if path.is_file()], 5) or "no files"
        what = "No image fits the pattern" if images else "The folder is no data set of a known layout"
        expected = next(iter(images), "a pattern, --images; or dataset.json, h5 files, DICOM")
        do = 'e.g. --images "*/{case}_t1.nii.gz" --labels "*/{case}_seg.nii.gz"'
        raise UserError(what, there, expected, do, source)
    if orphans := sorted(masked - named):
        do = "correct the patterns, or move these files away"
        raise UserError("Labels have no image", shortened(orphans, 5), None, do, source)
    cases = []
    for case in sorted(named):
        for name, pattern, files in channels:
            if case not in files:
                raise missing_image(case, source / pattern.replace("{case}", case), name)
        its = {files[case]: name for name, _, files in masks if case in files}
        cases.append(CaseSource(case, tuple(_scan(files[case], series) for *_, files in channels), its))
    names = tuple(name for name, *_ in channels if name)
    return Found(cases, f"Imported from {source.resolve().name}", names)


def find_table(source: Path, *, root: Path | None = None, series: str | None = None) -> Found:
    """Read a table in the form that PyMIC uses, too.

    Columns: `image`, or one column a channel that begins with `image`; `label` (empty: unlabeled), or
    several that begin with `label_`, each a mask with the rest as the class's name; `case` (else the name of
    the first image file); `pool` (train, test or unlabeled). Paths start from `root`, else from the table.
    """
    text, folder = read_text(source), root or source.parent
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, restval="")
    rows = [{key.strip(): value.strip() for key, value in row.items() if key} for row in table]
    columns = [*rows[0]] if rows else []
    images = [name for name in columns if re.fullmatch(r"image([_ ]?\w+)?", name)]
    labels = [name for name in columns if re.fullmatch(r"label(_.*)?", name)]
    if not images:
        what = "The table has no column of images" if rows else "The table has no rows"
        expected = "columns image, label (or image_0, image_1, ... for several channels) in the first line"
        raise UserError(what, ", ".join(columns), expected, path=source)
    cases = []
    for row in rows:
        files, pool = tuple(folder / row[name] for name in images), row.get("pool", "").lower()
        name = row.get("case") or _case_name(files[0])
        if not all(row[name] for name in images):
            there, expected = ", ".join(row.values()), f"a file in each of {', '.join(images)}"
            raise UserError("A row of the table lacks an image", there, expected, path=source)
        if missing := [file for file in files if not file.exists()]:
            raise missing_image(name, missing[0], None)
        if pool not in _POOLS:
            raise unknown("pool in the table", pool, ("train", "test", "unlabeled"), source)
        masks = {folder / row[column]: column[6:] or None for column in labels if row[column]}
        scans = tuple(_scan(file, series) for file in files)
        cases.append(CaseSource(name, scans, masks, _POOLS[pool]))
    channels = tuple(re.sub(r"^image[_ ]?", "", name) for name in images) if len(images) > 1 else ()
    order = tuple(case.name for case in cases if case.pool == "train")
    return Found(cases, f"Imported from {source.name}", channels, order=order)


def find_h5(source: Path, *, spacing_mm: Sequence[float] = (0.625, 0.625, 0.625)) -> Found:
    """Find `CASE/mri_norm2.h5` and `CASE.h5`; their voxel size is said to be `spacing_mm`."""
    if not all(0 < side < inf for side in spacing_mm):
        expected = "three lengths above 0, in mm"
        raise UserError("The voxel size is not positive", spacing_mm, expected, "--spacing-mm X Y Z")
    cases = [CaseSource(name, (path,), {path: None}) for name, path in sorted(h5_files(source))]
    spacing = " x ".join(f"{value:g}" for value in spacing_mm)
    description = f"Imported from h5 files, which store no voxel size: {spacing} mm is assumed"
    return Found(cases, description, ("MR",), spacing_mm=spacing_mm)


def h5_files(source: Path) -> Iterator[tuple[str, Path]]:
    """Find h5 files with the names of their cases: CASE.h5 and CASE/mri_norm2.h5."""
    yield from ((path.stem, path) for path in source.glob("[!.]*.h5"))
    yield from ((path.parent.name, path) for path in source.glob("[!.]*/mri_norm2.h5"))


def find_dicom(source: Path, *, series: str | None = None) -> Found:
    """Take one image series and at most one DICOM-SEG of each folder in `source`, or of `source` itself."""
    cases, modalities = [], []
    for folder in case_folders(source):
        chosen = choose_series(find_series(folder), series, folder)
        labels = find_series(folder, segmentations=True)
        if len(labels) > 1:
            what, expected = "There are several DICOM-SEG objects", "one in the folder of a case"
            raise UserError(what, list_series(labels), expected, path=folder)
        modalities.append(chosen.slices[0].modality)
        cases.append(CaseSource(folder.name, (chosen,), {item.path: None for item in labels}))
    return Found(cases, f"Imported from the DICOM series of {source.resolve().name}", (modalities[0],))


def find_single(source: Path, *, labels: Sequence[str] = ()) -> Found:
    """Make a case of a single file; `labels` are paths, `[CLASS=]FILE`."""
    masks = {Path(path): name for name, path in map(_split_name, labels)}
    return Found([CaseSource(_case_name(source), (source,), masks)], f"Imported from {source.name}")


def find_nnunet(source: Path, *, ignore: int | None = None) -> Found:
    """Find the cases of nnU-Net raw in any format as `dataset.json` declares them."""
    data = open_dataset(source, any_format=True)
    cases = [
        CaseSource(case.name, case.images, {case.label: None} if case.label else {}, case.pool)
        for case in data.cases
    ]
    description = str(read_json(source / "dataset.json").get("description", ""))
    classes = dict(zip(data.class_names[1:], data.class_values[1:], strict=True))
    ignored = data.ignore_value if ignore is None else ignore
    return Found(cases, description, data.channels, classes, ignored, data.order, data.regions)


def _scan(path: Path, series: str | None) -> Path | Series:
    """Return a file as it is, and of a DICOM folder the chosen series."""
    return choose_series(find_series(path), series, path) if path.is_dir() else path


def _case_name(file: Path) -> str:
    return stem(file).removesuffix("_0000")


def _split_name(text: str) -> tuple[str | None, str]:
    """Split `NAME=PATTERN`; the name is None where there is none."""
    name, _, pattern = text.partition("=")
    return (name.strip(), pattern) if name and pattern and not {*name} & {*"/*?{}"} else (None, text)


def visible_paths(root: Path) -> dict[str, Path]:
    """List files and folders below `root` by relative path, sorted, without hidden ones."""
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*"))}
    return {name: path for name, path in paths.items() if "/." not in f"/{name}"}


def match_paths(paths: dict[str, Path], pattern: str, root: Path, case: str = "[^/]+") -> dict[str, Path]:
    """Return the scans (files or DICOM folders) that fit a pattern, by case.

    `{case}` stands for the case's name, which fits the regular expression `case`, `*` and `?` for letters of
    one path part, `**/` for any folders. In a pattern without `{case}` its only `*` is the case. The pattern
    is one of the whole path below `root`, see `visible_paths`.
    """
    text = pattern.removeprefix("./")
    text = text.replace("*", "{case}") if "{case}" not in text and text.count("*") == 1 else text
    if "{case}" not in text:
        what, do = "The pattern does not say which part is the case", 'e.g. --images "images/{case}.nii.gz"'
        raise UserError(what, pattern, "{case} in the case's place", do, root)
    parts = re.split(r"(\{case\}|\*\*/|\*|\?)", text)
    regex = "".join(_WILD.get(part, re.escape(part)) for part in parts)
    regex = regex.replace("(?P=case)", f"(?P<case>{case})", 1)  # other places have to equal the first
    found: dict[str, Path] = {}
    for name, path in paths.items():
        match = re.fullmatch(regex, name)
        if match is None or (path.is_file() and not name.lower().endswith((*ENDINGS, ".h5"))):
            continue
        if (other := found.setdefault(match["case"], path)) is not path:
            both = f"{other.relative_to(root).as_posix()}, {name}"
            what, expected = f"Several files fit the pattern for case {match['case']}", f"one ({pattern})"
            raise UserError(what, both, expected, "remove one, or make the pattern more precise", root)
    return found
