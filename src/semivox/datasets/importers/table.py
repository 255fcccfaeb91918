"""A CSV table with a row a case: `image` (or `image_0`, `image_1`, ...), `label`, and optionally more."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from semivox.datasets.importers.found import Found
from semivox.datasets.importers.labels import LabelFile
from semivox.datasets.importers.options import ImportOptions, read_lists
from semivox.datasets.importers.pairs import Entry, found_of
from semivox.datasets.layouts import Pool, missing_image
from semivox.errors import UserError
from semivox.io.formats import stem

_POOLS: dict[str, Pool] = {
    "": "train",
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "unlabeled": "extra",
    "extra": "extra",
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
        raise UserError(
            "The table has no column of images",
            path=source,
            found=", ".join(columns),
            expected="columns image, label (or image_0, image_1, ... for several channels)",
            do="name the columns in the first line",
        )
    root = options.root or source.parent
    entries: list[Entry] = []
    for number, row in enumerate(rows, start=2):
        files = tuple(root / row[name] for name in images)
        name = row.get("case") or stem(files[0]).removesuffix("_0000")
        for file in files:
            if not file.exists():
                raise missing_image(name, file, None)
        found = tuple(
            LabelFile(root / row[column], None if column == "label" else column.removeprefix("label_"))
            for column in labels
            if row[column]
        )
        entries.append((name, _pool(row.get("pool", ""), source, number), files, found))
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
        raise UserError(
            "The table cannot be read",
            path=source,
            found=" ".join(str(error).split()),
            expected="comma-separated text in UTF-8",
            do="save it as CSV",
        ) from error
    if not rows:
        raise UserError("The table has no rows", path=source, expected="a line of names and a line a case")
    return rows


def _pool(text: str, source: Path, number: int) -> Pool:
    if text.lower() not in _POOLS:
        raise UserError(
            "Unknown pool in the table",
            path=source,
            found=f"{text!r} in line {number}",
            expected="train, test or unlabeled",
            do="correct the column pool",
        )
    return _POOLS[text.lower()]
