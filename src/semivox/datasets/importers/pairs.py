"""Images and labels found by patterns of their paths, and single files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from semivox.datasets.importers.found import CaseSource, Found, Loaded
from semivox.datasets.importers.labels import LabelFile, assemble, class_table
from semivox.datasets.importers.options import ImportOptions, read_lists
from semivox.datasets.layouts import Pool, missing_image, some
from semivox.errors import UserError
from semivox.io.formats import ENDINGS, stem
from semivox.io.volume import read_image

_NAMED = re.compile(r"(?P<name>[^/*?{}=]+)=(?P<pattern>.+)")


def find_pairs(source: Path, options: ImportOptions) -> Found:
    """Find images and labels by patterns relative to `source`.

    `{case}` stands for the case's name, `*` and `?` for letters of one path part, `**/` for any folders. In a
    pattern without `{case}` its only `*` is the case. A case without a label file is unlabeled.

    Raises:
        UserError: a pattern without a place for the case; no image; several files for one case and pattern;
            a missing channel; labels without an image.
    """
    paths = _paths(source)
    channels = [split_name(text) for text in options.images]
    images = [_match(source, paths, pattern) for _, pattern in channels]
    labels = [(name, _match(source, paths, pattern)) for name, pattern in map(split_name, options.labels)]
    if not images or not images[0]:
        raise UserError(
            "No image fits the pattern",
            path=source,
            found=some([path.relative_to(source).as_posix() for path in paths if path.is_file()])
            or "no files",
            expected=options.images[0] if options.images else "a pattern: --images",
            do='e.g. --images "*/{case}_t1.nii.gz" --labels "*/{case}_seg.nii.gz"',
        )
    if orphans := sorted({name for _, files in labels for name in files} - images[0].keys()):
        raise UserError(
            "Labels have no image",
            path=source,
            found=some(orphans),
            expected="an image for each label",
            do="correct the patterns, or move these files away",
        )
    for index, files in enumerate(images):
        if lacking := sorted(images[0].keys() - files.keys()):
            pattern = channels[index][1].replace("{case}", lacking[0])
            raise missing_image(lacking[0], source / pattern, channels[index][0])
    lists = read_lists(source, options, set(images[0]))
    names = options.channels or tuple(name for name, _ in channels if name)
    entries = [
        (
            case,
            lists.pool(case),
            tuple(files[case] for files in images),
            tuple(LabelFile(files[case], name) for name, files in labels if case in files),
        )
        for case in sorted(images[0])
    ]
    return found_of(entries, names, options, f"Imported from {source.resolve().name}", lists.order)


def find_single(source: Path, options: ImportOptions) -> Found:
    """Make a case of a single file; `options.labels` are paths, `[CLASS=]FILE`."""
    labels = tuple(LabelFile(Path(text), name) for name, text in map(split_name, options.labels))
    entries: list[Entry] = [(stem(source).removesuffix("_0000"), "train", (source,), labels)]
    return found_of(entries, options.channels, options, f"Imported from {source.name}")


Entry = tuple[str, Pool, tuple[Path, ...], tuple[LabelFile, ...]]


def found_of(
    entries: Sequence[Entry],
    channels: Sequence[str],
    options: ImportOptions,
    description: str,
    order: tuple[str, ...] = (),
) -> Found:
    """Make what is found of (case, pool, image files, label files)."""
    classes = class_table((file for entry in entries for file in entry[3]), options.classes)
    cases = tuple(
        CaseSource(
            name,
            pool,
            bool(labels),
            partial(_load, images, labels, classes, tuple(channels) or None),
            labels[0].path if labels else images[0],
        )
        for name, pool, images, labels in entries
    )
    return Found(cases, tuple(channels), classes, description, order)


def split_name(text: str) -> tuple[str | None, str]:
    """Split `NAME=PATTERN`; the name is None where there is none."""
    match = _NAMED.fullmatch(text)
    return (match["name"].strip(), match["pattern"]) if match else (None, text)


def _load(
    images: tuple[Path, ...],
    labels: tuple[LabelFile, ...],
    classes: dict[str, int] | None,
    channels: tuple[str, ...] | None,
) -> Loaded:
    image = read_image(images, channels)
    return Loaded(image, assemble(labels, image, classes) if labels else None)


def _paths(source: Path) -> list[Path]:
    """List files and folders below `source`, without hidden ones."""
    return [
        path
        for path in sorted(source.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(source).parts)
    ]


def _match(source: Path, paths: Sequence[Path], pattern: str) -> dict[str, Path]:
    regex = _regex(pattern, source)
    found: dict[str, Path] = {}
    for path in paths:
        match = regex.fullmatch(path.relative_to(source).as_posix())
        if match is None or (path.is_file() and not path.name.lower().endswith((*ENDINGS, ".seg"))):
            continue
        case = match["case"]
        if case in found:
            raise UserError(
                f"Several files fit the pattern for case {case}",
                path=source,
                found=some([item.relative_to(source).as_posix() for item in (found[case], path)]),
                expected=f"one file for each case and pattern ({pattern})",
                do="make the pattern more precise",
            )
        found[case] = path
    return found


def _regex(pattern: str, source: Path) -> re.Pattern[str]:
    """Translate a pattern; the group `case` is the case's name."""
    text = pattern.removeprefix("./")
    if "{case}" not in text:
        if text.count("*") != 1:
            raise UserError(
                "The pattern does not say which part is the case",
                path=source,
                found=pattern,
                expected="{case} in the place of the case's name",
                do='e.g. --images "images/{case}_t1.nii.gz"',
            )
        text = text.replace("*", "{case}")
    parts = re.split(r"(\{case\}|\*\*/|\*|\?)", text)
    known = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    result, seen = "", False
    for part in parts:
        if part == "{case}":
            result += "(?P=case)" if seen else "(?P<case>[^/]+)"
            seen = True
        else:
            result += known.get(part, re.escape(part))
    return re.compile(result)
