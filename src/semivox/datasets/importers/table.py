"""A CSV table with a row a case: `image` (or `image_0`, `image_1`, ...), `label`, and optionally more."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from semivox.datasets.importers.pairs import found_of
from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, LabelFile, read_lists
from semivox.datasets.listing import Pool, missing_image
from semivox.errors import UserError, unknown
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
    """
    rows, root = _read(source), options.root or source.parent
    images = [name for name in rows[0] if re.fullmatch(r"image([_ ]?\w+)?", name)]
    labels = [name for name in rows[0] if name == "label" or name.startswith("label_")]
    if not images:
        expected = "columns image, label (or image_0, image_1, ... for several channels)"
        do = "name the columns in the first line"
        raise UserError("The table has no column of images", ", ".join(rows[0]), expected, do, source)
    cases = []
    for row in rows:
        files = tuple(root / row[name] for name in images)
        name, pool = row.get("case") or stem(files[0]).removesuffix("_0000"), row.get("pool", "").lower()
        if missing := [file for file in files if not file.exists()]:
            raise missing_image(name, missing[0], None)
        if pool not in _POOLS:
            raise unknown("pool in the table", pool, ("train", "test", "unlabeled"), source)
        masks = [
            LabelFile(root / row[column], column.removeprefix("label").removeprefix("_") or None)
            for column in labels
            if row[column]
        ]
        cases.append(CaseSource(name, _POOLS[pool], files, tuple(masks)))
    pools, _ = read_lists(source.parent, options, {case.name for case in cases})
    cases = [case._replace(pool=pools[case.name]) if case.pool == "train" else case for case in cases]
    channels = options.channels
    if not channels and len(images) > 1:
        channels = tuple(re.sub(r"^image[_ ]?", "", name) for name in images)
    order = tuple(case.name for case in cases if case.pool == "train")
    return found_of(cases, channels, options.classes, f"Imported from {source.name}", order)


def _read(source: Path) -> list[dict[str, str]]:
    try:
        text = source.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        rows = [
            {(key or "").strip(): (value or "").strip() for key, value in row.items() if key is not None}
            for row in csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what, expected = "The table cannot be read", "comma-separated text in UTF-8"
        raise UserError(what, " ".join(str(error).split()), expected, "save it as CSV", source) from error
    if not rows:
        raise UserError("The table has no rows", None, "a line of names and a line a case", None, source)
    return rows
