"""Images and labels found by patterns of their paths, single files, and nnU-Net raw in NRRD or MetaImage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from semivox.datasets.dataset import open_dataset
from semivox.datasets.importers.labels import LabelFile, assemble, class_table
from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, Loaded, read_lists
from semivox.datasets.listing import Pool, missing_image
from semivox.errors import UserError, shortened
from semivox.files import read_json
from semivox.io.formats import ENDINGS, stem
from semivox.io.volume import read_image

Entry = tuple[str, Pool, tuple[Path, ...], tuple[LabelFile, ...]]

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
        found = shortened([path.relative_to(source).as_posix() for path in paths if path.is_file()], 5)
        expected = options.images[0] if options.images else "a pattern: --images"
        do = 'e.g. --images "*/{case}_t1.nii.gz" --labels "*/{case}_seg.nii.gz"'
        raise UserError("No image fits the pattern", found or "no files", expected, do, source)
    names: set[str] = set().union(*images)
    if orphans := sorted({name for _, files in labels for name in files} - names):
        do = "correct the patterns, or move these files away"
        raise UserError("Labels have no image", shortened(orphans, 5), "an image for each label", do, source)
    for (channel, pattern), files in zip(channels, images, strict=True):
        if lacking := sorted(names - files.keys()):
            raise missing_image(lacking[0], source / pattern.replace("{case}", lacking[0]), channel)
    lists = read_lists(source, options, names)
    entries: list[Entry] = [
        (
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
    entries: list[Entry] = [(stem(source).removesuffix("_0000"), "train", (source,), labels)]
    return found_of(entries, options.channels, options, f"Imported from {source.name}")


def find_nnunet(source: Path, _: ImportOptions) -> Found:
    """Find the cases of nnU-Net raw in any format as `dataset.json` declares them."""
    dataset = open_dataset(source, kind="nnunet", any_format=True)
    entries: list[Entry] = [
        (case.name, case.pool, case.images, (LabelFile(case.label),) if case.label else ())
        for case in dataset.cases
    ]
    classes = dict(zip(dataset.class_names[1:], dataset.class_values[1:], strict=True))
    description = str(read_json(source / "dataset.json").get("description", ""))
    found = found_of(entries, dataset.channels, ImportOptions(classes=classes), description, dataset.order)
    return replace(found, ignore=dataset.ignore_value, regions=dataset.regions)


def found_of(
    entries: Sequence[Entry],
    channels: Sequence[str],
    options: ImportOptions,
    description: str,
    order: tuple[str, ...] = (),
) -> Found:
    """Return what was found, from (case, pool, image files, label files)."""
    classes = class_table((file for entry in entries for file in entry[3]), options.classes)
    cases = tuple(
        CaseSource(
            name,
            pool,
            bool(labels),
            partial(_load, images, labels, classes, tuple(channels) or None),
            (*images, *(file.path for file in labels)),
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
            both = [item.relative_to(source).as_posix() for item in (found[case], path)]
            what, expected = f"Several files fit the pattern for case {case}", f"one file ({pattern})"
            raise UserError(what, ", ".join(both), expected, "make the pattern more precise", source)
        found[case] = path
    return found


def _regex(pattern: str, source: Path) -> re.Pattern[str]:
    """Translate a pattern; the group `case` is the case's name."""
    text = pattern.removeprefix("./")
    if "{case}" not in text:
        if text.count("*") != 1:
            what, expected = "The pattern does not say which part is the case", "{case} in the case's place"
            raise UserError(what, pattern, expected, 'e.g. --images "images/{case}_t1.nii.gz"', source)
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
