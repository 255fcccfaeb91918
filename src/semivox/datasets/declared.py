"""What a `dataset.json` of nnU-Net or MSD form declares: channels, classes, regions, file ending, order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semivox.errors import UserError, shortened
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS

Meta = Mapping[str, Any]
Regions = Mapping[str, tuple[int, ...]]  # values on disk of the classes of each region


def read_channels(meta: Meta, path: Path) -> tuple[str, ...]:
    """Return the channel names of `channel_names` (nnU-Net) or `modality` (MSD), in order."""
    names = meta.get("channel_names", meta.get("modality"))
    if isinstance(names, list):
        names = {str(index): name for index, name in enumerate(names)}
    if isinstance(names, Mapping) and names and sorted(names) == sorted(map(str, range(len(names)))):
        return tuple(str(names[str(index)]) for index in range(len(names)))
    what, expected = "The channels are not declared", 'e.g. "channel_names": {"0": "T1", "1": "T2"}'
    raise UserError(what, f"channel_names: {names!r}", expected, "correct dataset.json", path)


def read_classes(meta: Meta, path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and on-disk values of the classes, background first, the others by rising value.

    Where nnU-Net's regions are declared (lists of values, which may overlap), each value is a class: it has
    the name of the region that is this value alone, else `label_VALUE`. See `read_regions`.
    """
    labels = {name: value for name, value in _labels(meta).items() if not _is_ignore(name, value)}
    pairs = [(str(name), value) for name, value in labels.items()]
    if any(isinstance(value, list) for value in labels.values()):
        pairs = _parts(pairs, path)
    elif all(map(_is_integer, labels)) and not all(map(_is_integer, labels.values())):  # as MSD has them
        pairs = [(str(name), value) for value, name in labels.items()]
    if wrong := [f"{name}: {value!r}" for name, value in pairs if not _is_integer(value)]:
        raise _bad_labels(path, meta, wrong)
    classes = sorted(((int(value), name) for name, value in pairs), key=lambda item: (item[0] != 0, item))
    values, names = tuple(value for value, _ in classes), tuple(name for _, name in classes)
    twice = [f"{n}: {v}" for v, n in classes if values.count(v) > 1 or names.count(n) > 1]
    if twice or not 2 <= len(classes) <= 255 or values[0] != 0:
        raise _bad_labels(path, meta, twice)
    return names, values


def _parts(pairs: Sequence[tuple[str, Any]], path: Path) -> list[tuple[str, Any]]:
    """Make classes of single values from regions that may overlap."""
    sets = [(name, value if isinstance(value, list) else [value]) for name, value in pairs]
    if not all(values and all(isinstance(value, int) for value in values) for _, values in sets):
        raise _bad_labels(path, {"labels": dict(pairs)})
    parts = [(name, values[0]) for name, values in sets if len(values) == 1]
    unnamed = {value for _, values in sets for value in values} - {value for _, value in parts}
    new = [(f"label_{value}", value) for value in sorted(unnamed)]
    if {name for name, _ in new} & {name for name, _ in sets}:
        raise _bad_labels(path, {"labels": dict(pairs)})
    return [*parts, *new]


def read_ignore(meta: Meta, path: Path) -> int | None:
    """Return the value on disk of voxels that are not annotated: that of the class `ignore`, if any."""
    pairs = list(_labels(meta).items())
    found = [pair for pair in pairs if _is_ignore(*pair)]
    if not found:
        return None
    value = found[0][0] if str(found[0][1]).lower() == "ignore" else found[0][1]
    others = [str(part) for pair in pairs if pair not in found for part in pair]
    if len(found) > 1 or not _is_integer(value) or str(value) in others:
        raise _bad_labels(path, meta)
    return int(value)


def read_regions(
    declared: Any, class_names: Sequence[str], class_values: Sequence[int], path: Path | None = None
) -> dict[str, tuple[int, ...]]:
    """Check a declaration such as {"whole_tumor": [1, 2, 4], "tumor_core": [1, 4]}; None: no regions.

    A region has a name that no class has, and takes foreground values on disk. Messages name `path`.
    """
    if declared is None:
        return {}
    known = [value for value in class_values if value]
    regions: Meta = declared if isinstance(declared, Mapping) else {"regions": str(declared)}
    for name, values in regions.items():
        is_list = isinstance(values, list | tuple) and len(values) > 0
        if not is_list or name in class_names or any(value not in known for value in values):
            expected = f"a name that no class has, and values among {', '.join(map(str, known))}"
            do = 'declare it in dataset.json, "regions": {"NAME": [1, 2]}, or as --region NAME=1,2'
            raise UserError("A region cannot be used", f"{name}: {values!r}"[:200], expected, do, path)
    return {str(name): tuple(dict.fromkeys(values)) for name, values in regions.items()}


def declared_regions(meta: Meta) -> Any:
    """Return `regions`, or the regions of several values among nnU-Net's `labels`, for `read_regions`."""
    labels = _labels(meta).items()
    several = {str(name): value for name, value in labels if isinstance(value, list) and len(value) > 1}
    return meta.get("regions", several)


def parse_regions(texts: Sequence[str]) -> dict[str, list[int]] | None:
    """Read `NAME=1,2,4`, one text a region; return None if there are none."""
    found: dict[str, list[int]] = {}
    for text in texts:
        name, _, values = (part.strip() for part in text.partition("="))
        try:
            if name in found:
                raise ValueError(name)
            found[name] = [int(value) for value in values.split(",")]
        except ValueError as error:
            expected = "NAME=VALUE,VALUE, each name once, e.g. tumor_core=1,4"
            raise UserError("A region is malformed", text, expected) from error
    return found or None


def read_order(meta: Meta, path: Path) -> tuple[str, ...]:
    """Return the names of training cases in the order of splits; empty where none is declared."""
    order = meta.get("order", [])
    if not (isinstance(order, list) and all(isinstance(name, str) for name in order)):
        what, expected = "The order of the cases is malformed", "a list of names of training cases"
        raise UserError(what, f"order: {order!r}"[:200], expected, "correct it, or leave it out", path)
    return tuple(order)


def read_ending(meta: Meta, path: Path, *, any_format: bool = False) -> str | None:
    """Return the declared file ending, with its dot; None: not declared, any NIfTI ending will do."""
    ending = meta.get("file_ending")
    if ending is None:
        return None
    dotted = "." + str(ending).strip().lower().removeprefix(".")
    if dotted in NIFTI_ENDINGS or (any_format and dotted in ITK_ENDINGS):
        return dotted
    do = "semivox import converts NRRD and MetaImage files; convert others to NIfTI"
    raise UserError("The format is not supported yet", ending, ".nii.gz or .nii", do, path)


def _labels(meta: Meta) -> Meta:
    labels = meta.get("labels")
    return labels if isinstance(labels, Mapping) else {}


def _is_integer(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+", value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ignore(name: object, value: object) -> bool:
    return "ignore" in (str(name).lower(), str(value).lower())


def _bad_labels(path: Path, meta: Meta, wrong: Sequence[str] = ()) -> UserError:
    what = "The classes are not declared as names with one integer each"
    expected = (
        "0 for the background and other integers for 1 to 254 classes, each once,"
        ' e.g. "labels": {"background": 0, "liver": 1}; regions as lists of integers; "ignore" as an integer'
    )
    found = "; ".join([*([shortened(wrong)] if wrong else []), f"labels: {meta.get('labels')}"])
    return UserError(what, found[:500], expected, "correct dataset.json", path)
