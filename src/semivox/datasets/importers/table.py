"""A CSV table with a row a case: `image` (or `image_0`, `image_1`, ...), `label`, and optionally more."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from semivox.datasets.importers.labels import LabelFile
from semivox.datasets.importers.pairs import Entry, found_of
from semivox.datasets.importers.source import Found, ImportOptions, read_lists
from semivox.datasets.listing import Pool, missing_image
from semivox.errors import UserError
from semivox.io.formats import stem

_POOLS: dict[str, Pool] = {
    **dict.fromkeys(("", "train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("unlabeled", "extra"), "extra"),
}


def find_table(source: Path, options: ImportOptions) -> Found:
    """Read a table in the form that PyMIC uses, too.

    Columns: `image`, or one column a channel that begins with `image`; `label` (empty: unlabeled), or
    several that begin with `label_`, each a mask with the rest as the class's name; `case` (else the name of
    the first image file); `pool` (train, test or unlabeled). Paths start from `options.root`, else from the
    table.

    Raises:
        UserError: an unreadable table or one without an image column; a file that does not exist; an unknown
            pool.
    """
    rows = _read(source)
    columns = list(rows[0])
    images = [name for name in columns if name == "image" or re.fullmatch(r"image[_ ]?\w+", name)]
    labels = [name for name in columns if name == "label" or name.startswith("label_")]
    if not images:
        expected = "columns image, label (or image_0, image_1, ... for several channels)"
        do, found = "name the columns in the first line", ", ".join(columns)
        raise UserError("The table has no column of images", found, expected, do, source)
    root = options.root or source.parent
    entries: list[Entry] = []
    for number, row in enumerate(rows, start=2):
        files = tuple(root / row[name] for name in images)
        name = row.get("case") or stem(files[0]).removesuffix("_0000")
        for file in files:
            if not file.exists():
                raise missing_image(name, file, None)
        masks = tuple(
            LabelFile(root / row[column], None if column == "label" else column.removeprefix("label_"))
            for column in labels
            if row[column]
        )
        entries.append((name, _pool(row.get("pool", ""), source, number), files, masks))
    lists = read_lists(source.parent, options, {entry[0] for entry in entries})
    if lists.train is not None or lists.test:
        entries = [
            (name, lists.pool(name) if pool == "train" else pool, image, label)
            for name, pool, image, label in entries
        ]
    channels = options.channels or (
        tuple(re.sub(r"^image[_ ]?", "", name) for name in images) if len(images) > 1 else ()
    )
    order = tuple(entry[0] for entry in entries if entry[1] == "train")
    return found_of(entries, channels, options, f"Imported from {source.name}", order)


def _read(source: Path) -> list[dict[str, str]]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as stream:
            sample = stream.read(4096)
            stream.seek(0)
            delimiter = max(",;\t", key=sample.partition("\n")[0].count)
            rows = [
                {(key or "").strip(): (value or "").strip() for key, value in row.items() if key is not None}
                for row in csv.DictReader(stream, delimiter=delimiter)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found = " ".join(str(error).split())
        what, expected = "The table cannot be read", "comma-separated text in UTF-8"
        raise UserError(what, found, expected, "save it as CSV", source) from error
    if not rows:
        raise UserError("The table has no rows", None, "a line of names and a line a case", None, source)
    return rows


def _pool(text: str, source: Path, number: int) -> Pool:
    if text.lower() not in _POOLS:
        found, do = f"{text!r} in line {number}", "correct the column pool"
        raise UserError("Unknown pool in the table", found, "train, test or unlabeled", do, source)
    return _POOLS[text.lower()]
