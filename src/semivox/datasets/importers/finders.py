"""Cases by patterns of their paths, of tables, h5 files, DICOM folders, single files, nnU-Net raw."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from semivox.datasets.dataset import open_dataset
from semivox.datasets.importers.load import found_of
from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, LabelFile
from semivox.datasets.listing import Pool, missing_image
from semivox.errors import UserError, shortened, unknown
from semivox.files import read_json
from semivox.io.dicom_series import Series, case_folders, choose_series, find_series, list_series
from semivox.io.formats import ENDINGS, stem

_NAMED = re.compile(r"(?P<name>[^/*?{}=]+)=(?P<pattern>.+)")
_GLOB = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
_POOLS: dict[str, Pool] = {
    **dict.fromkeys(("", "train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("unlabeled", "extra"), "extra"),
}
_FILES = (*ENDINGS, ".h5")


def find_pairs(source: Path, options: ImportOptions) -> Found:
    """Find images and labels by patterns relative to `source`, see `match_paths`."""
    paths = visible_paths(source)
    channels = [_split_name(text) for text in options.images]
    images = [match_paths(paths, pattern, source) for _, pattern in channels]
    labels = [(name, match_paths(paths, text, source)) for name, text in map(_split_name, options.labels)]
    if not images or not images[0]:
        found = shortened([name for name, path in paths.items() if path.is_file()], 5) or "no files"
        do = 'e.g. --images "*/{case}_t1.nii.gz" --labels "*/{case}_seg.nii.gz"'
        expected = next(iter(options.images), "a pattern, --images; or dataset.json, h5 files, DICOM")
        what = "No image fits the pattern" if images else "The folder is no data set of a known layout"
        raise UserError(what, found, expected, do, source)
    names: set[str] = set().union(*images)
    if orphans := sorted({name for _, files in labels for name in files} - names):
        do = "correct the patterns, or move these files away"
        raise UserError("Labels have no image", shortened(orphans, 5), None, do, source)
    for (channel, pattern), files in zip(channels, images, strict=True):
        if lacking := sorted(names - files.keys()):
            raise missing_image(lacking[0], source / pattern.replace("{case}", lacking[0]), channel)
    cases = []
    for case in sorted(names):
        its = tuple(LabelFile(files[case], name) for name, files in labels if case in files)
        cases.append(CaseSource(case, "train", tuple(_scan(files[case], options) for files in images), its))
    description = f"Imported from {source.resolve().name}"
    given = [name for name, _ in channels if name]
    return found_of(cases, options, description, lists=source, channels=given)


def find_table(source: Path, options: ImportOptions) -> Found:
    """Read a table in the form that PyMIC uses, too.

    Columns: `image`, or one column a channel that begins with `image`; `label` (empty: unlabeled), or
    several that begin with `label_`, each a mask with the rest as the class's name; `case` (else the name of
    the first image file); `pool` (train, test or unlabeled). Paths start from `options.root`, else from the
    table.
    """
    rows, root = _table_rows(source), options.root or source.parent
    images = [name for name in rows[0] if re.fullmatch(r"image([_ ]?\w+)?", name)]
    labels = [name for name in rows[0] if name == "label" or name.startswith("label_")]
    if not images:
        expected = "columns image, label (or image_0, image_1, ... for several channels) in the first line"
        raise UserError("The table has no column of images", ", ".join(rows[0]), expected, path=source)
    cases = []
    for row in rows:
        files, pool = tuple(root / row[name] for name in images), row.get("pool", "").lower()
        name = row.get("case") or _name(files[0])
        if not all(row[name] for name in images):
            found, expected = ", ".join(row.values()), f"a file in each of {', '.join(images)}"
            raise UserError("A row of the table lacks an image", found, expected, path=source)
        if missing := [file for file in files if not file.exists()]:
            raise missing_image(name, missing[0], None)
        if pool not in _POOLS:
            raise unknown("pool in the table", pool, ("train", "test", "unlabeled"), source)
        masks = [LabelFile(root / row[column], column[6:] or None) for column in labels if row[column]]
        scans = tuple(_scan(file, options) for file in files)
        cases.append(CaseSource(name, _POOLS[pool], scans, tuple(masks)))
    named = [re.sub(r"^image[_ ]?", "", name) for name in images] if len(images) > 1 else []
    order = tuple(case.name for case in cases if case.pool == "train")
    description = f"Imported from {source.name}"
    return found_of(cases, options, description, lists=source.parent, channels=named, order=order)


def _table_rows(source: Path) -> list[dict[str, str]]:
    try:
        text = source.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        table = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter, restval="")
        rows = [{key.strip(): value.strip() for key, value in row.items() if key} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        expected = "comma-separated text in UTF-8"
        raise UserError("The table cannot be read", error, expected, "save it as CSV", source) from error
    if not rows:
        raise UserError("The table has no rows", None, "a line of names and a line a case", None, source)
    return rows


def find_h5(source: Path, options: ImportOptions) -> Found:
    """Find `CASE/mri_norm2.h5` and `CASE.h5`; their voxel size is said to be `options.spacing_mm`."""
    files = sorted(h5_files(source))
    cases = [CaseSource(name, "train", (path,), (LabelFile(path),)) for name, path in files]
    spacing = " x ".join(f"{value:g}" for value in options.spacing_mm)
    description = f"Imported from h5 files, which store no voxel size: {spacing} mm is assumed"
    return found_of(cases, options, description, lists=source, channels=("MR",))


def h5_files(source: Path) -> Iterator[tuple[str, Path]]:
    """Find h5 files with the names of their cases: CASE.h5 and CASE/mri_norm2.h5."""
    yield from ((path.stem, path) for path in source.glob("[!.]*.h5"))
    yield from ((path.parent.name, path) for path in source.glob("[!.]*/mri_norm2.h5"))


def find_dicom(source: Path, options: ImportOptions) -> Found:
    """Take one image series and at most one DICOM-SEG of each folder in `source`, or of `source` itself."""
    cases, modalities = [], []
    for folder in case_folders(source):
        series = choose_series(find_series(folder), options.series, folder)
        labels = find_series(folder, segmentations=True)
        if len(labels) > 1:
            what = "There are several DICOM-SEG objects"
            raise UserError(what, list_series(labels), "one a case", "keep one of them in the folder", folder)
        modalities.append(series.slices[0].modality)
        files = tuple(LabelFile(item.path) for item in labels)
        cases.append(CaseSource(folder.name, "train", (series,), files))
    description = f"Imported from the DICOM series of {source.resolve().name}"
    return found_of(cases, options, description, lists=source, channels=modalities[:1])


def find_single(source: Path, options: ImportOptions) -> Found:
    """Make a case of a single file; `options.labels` are paths, `[CLASS=]FILE`."""
    labels = tuple(LabelFile(Path(text), name) for name, text in map(_split_name, options.labels))
    case = CaseSource(_name(source), "train", (source,), labels)
    return found_of([case], options, f"Imported from {source.name}")


def find_nnunet(source: Path, _: ImportOptions) -> Found:
    """Find the cases of nnU-Net raw in any format as `dataset.json` declares them."""
    dataset = open_dataset(source, any_format=True)
    cases = [
        CaseSource(case.name, case.pool, case.images, (LabelFile(case.label),) if case.label else ())
        for case in dataset.cases
    ]
    classes = dict(zip(dataset.class_names[1:], dataset.class_values[1:], strict=True))
    declared = ImportOptions(channels=dataset.channels, classes=classes)
    description = str(read_json(source / "dataset.json").get("description", ""))
    found = found_of(cases, declared, description, order=dataset.order)
    return replace(found, ignore=dataset.ignore_value, regions=dataset.regions)


def _scan(path: Path, options: ImportOptions) -> Path | Series:
    """Return a file as it is, and of a DICOM folder the chosen series."""
    return choose_series(find_series(path), options.series, path) if path.is_dir() else path


def _name(file: Path) -> str:
    return stem(file).removesuffix("_0000")


def _split_name(text: str) -> tuple[str | None, str]:
    """Split `NAME=PATTERN`; the name is None where there is none."""
    match = _NAMED.fullmatch(text)
    return (match["name"].strip(), match["pattern"]) if match else (None, text)


def visible_paths(root: Path) -> dict[str, Path]:
    """List files and folders below `root` by relative path, sorted, without hidden ones."""
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*"))}
    return {name: path for name, path in paths.items() if not f"/{name}".count("/.")}


def match_paths(paths: dict[str, Path], pattern: str, root: Path, case: str = "[^/]+") -> dict[str, Path]:
    """Return the scans (files or DICOM folders) that fit a pattern, by case.

    `{case}` stands for the case's name, which fits the regular expression `case`, `*` and `?` for letters of
    one path part, `**/` for any folders. In a pattern without `{case}` its only `*` is the case. The pattern
    is one of the whole path below `root`, see `visible_paths`.
    """
    text = pattern.removeprefix("./")
    if "{case}" not in text and text.count("*") != 1:
        what, do = "The pattern does not say which part is the case", 'e.g. --images "images/{case}.nii.gz"'
        raise UserError(what, pattern, "{case} in the case's place", do, root)
    text = text if "{case}" in text else text.replace("*", "{case}")
    parts = re.split(r"(\{case\}|\*\*/|\*|\?)", text)
    fixed = [_GLOB.get(part, part if part == "{case}" else re.escape(part)) for part in parts]
    first, *others = "".join(fixed).split("{case}")
    regex = re.compile(f"{first}(?P<case>{case}){'(?P=case)'.join(others)}")
    found: dict[str, Path] = {}
    for name, path in paths.items():
        match = regex.fullmatch(name)
        if match is None or (path.is_file() and not name.lower().endswith(_FILES)):
            continue
        if (other := found.setdefault(match["case"], path)) is not path:
            both = f"{other.relative_to(root).as_posix()}, {name}"
            what, expected = f"Several files fit the pattern for case {match['case']}", f"one ({pattern})"
            raise UserError(what, both, expected, "remove one, or make the pattern more precise", root)
    return found
