"""Images and labels found by patterns of their paths, single files, and nnU-Net raw in NRRD or MetaImage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from semivox.datasets.dataset import open_dataset
from semivox.datasets.importers.labels import LabelFile, assemble, class_table
from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, Loaded, read_lists
from semivox.datasets.listing import Pool, missing_image
from semivox.errors import UserError, shortened
from semivox.files import read_json
from semivox.io.dicom_series import Series
from semivox.io.formats import ENDINGS, stem
from semivox.io.volume import read_image

_NAMED = re.compile(r"(?P<name>[^/*?{}=]+)=(?P<pattern>.+)")
_GLOB = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
_FILES = (*ENDINGS, ".seg", ".h5")


class Entry(NamedTuple):
    """A case as a source lists it: one image a channel, or one DICOM series; any number of label files."""

    name: str
    pool: Pool
    images: tuple[Path | Series, ...]
    labels: tuple[LabelFile, ...]


def find_pairs(source: Path, options: ImportOptions) -> Found:
    """Find images and labels by patterns relative to `source`, see `match_paths`.

    A case without a label file is unlabeled.
    """
    paths = visible_paths(source)
    channels = [split_name(text) for text in options.images]
    images = [match_paths(paths, pattern, source) for _, pattern in channels]
    labels = [(name, match_paths(paths, text, source)) for name, text in map(split_name, options.labels)]
    if not images or not images[0]:
        found = shortened([name for name, path in paths.items() if path.is_file()], 5) or "no files"
        do = 'e.g. --images "*/{case}_t1.nii.gz" --labels "*/{case}_seg.nii.gz"'
        expected = next(iter(options.images), "a pattern: --images")
        raise UserError("No image fits the pattern", found, expected, do, source)
    names: set[str] = set().union(*images)
    if orphans := sorted({name for _, files in labels for name in files} - names):
        do = "correct the patterns, or move these files away"
        raise UserError("Labels have no image", shortened(orphans, 5), None, do, source)
    for (channel, pattern), files in zip(channels, images, strict=True):
        if lacking := sorted(names - files.keys()):
            raise missing_image(lacking[0], source / pattern.replace("{case}", lacking[0]), channel)
    lists = read_lists(source, options, names)
    entries = [
        Entry(
            case,
            lists.pool(case),
            tuple(files[case] for files in images),
            tuple(LabelFile(files[case], name) for name, files in labels if case in files),
        )
        for case in sorted(names)
    ]
    given = options.channels or tuple(name for name, _ in channels if name)
    return found_of(entries, given, options, f"Imported from {source.resolve().name}", lists.order)


def find_single(source: Path, options: ImportOptions) -> Found:
    """Make a case of a single file; `options.labels` are paths, `[CLASS=]FILE`."""
    labels = tuple(LabelFile(Path(text), name) for name, text in map(split_name, options.labels))
    entry = Entry(stem(source).removesuffix("_0000"), "train", (source,), labels)
    return found_of([entry], options.channels, options, f"Imported from {source.name}")


def find_nnunet(source: Path, _: ImportOptions) -> Found:
    """Find the cases of nnU-Net raw in any format as `dataset.json` declares them."""
    dataset = open_dataset(source, kind="nnunet", any_format=True)
    entries = [
        Entry(case.name, case.pool, case.images, (LabelFile(case.label),) if case.label else ())
        for case in dataset.cases
    ]
    options = ImportOptions(classes=dict(zip(dataset.class_names[1:], dataset.class_values[1:], strict=True)))
    description = str(read_json(source / "dataset.json").get("description", ""))
    found = found_of(entries, dataset.channels, options, description, dataset.order)
    return replace(found, ignore=dataset.ignore_value, regions=dataset.regions)


def found_of(
    entries: Sequence[Entry],
    channels: Sequence[str],
    options: ImportOptions,
    description: str,
    order: tuple[str, ...] = (),
) -> Found:
    """Return what the entries hold; the classes are those declared, else those of the label files."""
    classes = class_table((file for entry in entries for file in entry.labels), options.classes)

    def load(entry: Entry) -> Loaded:
        image = read_image(entry.images, tuple(channels) or None)
        return Loaded(image, assemble(entry.labels, image, classes or {}) if entry.labels else None)

    def files(entry: Entry) -> tuple[Path, ...]:
        images = (item.files if isinstance(item, Series) else (item,) for item in entry.images)
        return (*(file for item in images for file in item), *(file.path for file in entry.labels))

    cases = tuple(
        CaseSource(entry.name, entry.pool, bool(entry.labels), partial(load, entry), files(entry))
        for entry in entries
    )
    return Found(cases, tuple(channels), classes, description, order)


def split_name(text: str) -> tuple[str | None, str]:
    """Split `NAME=PATTERN`; the name is None where there is none."""
    match = _NAMED.fullmatch(text)
    return (match["name"].strip(), match["pattern"]) if match else (None, text)


def visible_paths(root: Path) -> dict[str, Path]:
    """List files and folders below `root` by relative path, sorted, without hidden ones."""
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*"))}
    return {name: path for name, path in paths.items() if not f"/{name}".count("/.")}


def match_paths(paths: dict[str, Path], pattern: str, root: Path, case: str = "[^/]+") -> dict[str, Path]:
    """Return the scans (files or DICOM folders) that fit a pattern, by case.

    `{case}` stands for the case's name, `*` and `?` for letters of one path part, `**/` for any folders. In a
    pattern without `{case}` its only `*` is the case.

    Args:
        paths: see `visible_paths`.
        pattern: of the whole relative path.
        root: for messages.
        case: regular expression of the names.
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
