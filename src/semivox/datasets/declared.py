"""What a `dataset.json` of nnU-Net or MSD form declares: channels, classes, the file ending, an order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from semivox.errors import UserError
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS

Kind = Literal["semivox", "nnunet", "msd"]
Meta = Mapping[str, Any]

ENDING = ".nii.gz"


def detect(meta: Meta) -> Kind | None:
    """Tell the layout by the keys of `dataset.json`."""
    if meta.get("format") == "semivox":
        return "semivox"
    if "training" in meta or "modality" in meta:
        return "msd"
    return "nnunet" if "channel_names" in meta else None


def read_channels(meta: Meta, path: Path) -> tuple[str, ...]:
    """Give the channel names of `channel_names` (nnU-Net) or `modality` (MSD), in order."""
    names = meta.get("channel_names", meta.get("modality"))
    if isinstance(names, Mapping) and names and sorted(names) == sorted(map(str, range(len(names)))):
        return tuple(str(names[str(index)]) for index in range(len(names)))
    if isinstance(names, list) and names:
        return tuple(map(str, names))
    raise UserError(
        "The channels are not declared",
        path=path,
        found=f"channel_names: {names!r}",
        expected='every channel\'s name, e.g. "channel_names": {"0": "T1", "1": "T2"}',
        do="correct dataset.json",
    )


def read_classes(meta: Meta, path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Give names and on-disk values of the classes, background first, the others by rising value.

    Where nnU-Net's regions are declared (lists of values, which may overlap), each value is a class: it has
    the name of the region that is this value alone, else `label_VALUE`. See `read_region_labels`.
    """
    labels = meta.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        raise _bad_labels(path, "The classes are not declared", labels)
    labels = {name: value for name, value in labels.items() if not _is_ignore(name, value)}
    if any(isinstance(value, list) for value in labels.values()):
        labels = _parts(labels, path)
    flipped = all(map(_is_integer, labels)) and not all(map(_is_integer, labels.values()))
    pairs = [(value, name) if flipped else (name, value) for name, value in labels.items()]
    if not all(_is_integer(value) and abs(int(value)) < 1 << 30 for _, value in pairs):
        raise _bad_labels(path, "A class value is not an integer", labels)
    classes = sorted((int(value), str(name)) for name, value in pairs)
    values = [value for value, _ in classes]
    if 0 not in values:
        raise _bad_labels(path, "No class has the value 0", labels)
    if len(set(values)) < len(values):
        raise _bad_labels(path, "Two classes have the same value", labels)
    if not 2 <= len(values) <= 255:
        raise _bad_labels(
            path, "There must be 1 to 254 classes beside the background", f"{len(values)} in all"
        )
    classes.sort(key=lambda item: (item[0] != 0, item[0]))
    return tuple(name for _, name in classes), tuple(value for value, _ in classes)


def read_region_labels(meta: Meta) -> dict[str, list[int]]:
    """Give the regions of several values that nnU-Net's `labels` declare, for `read_regions`."""
    labels = meta.get("labels")
    items = labels.items() if isinstance(labels, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, list) and len(value) > 1}


def read_ignore(meta: Meta, path: Path) -> int | None:
    """Give the value on disk of voxels that are not annotated: that of the class named `ignore`, if any."""
    labels = meta.get("labels")
    found = [pair for pair in labels.items() if _is_ignore(*pair)] if isinstance(labels, Mapping) else []
    values = [name if str(value).lower() == "ignore" else value for name, value in found]
    if not values:
        return None
    others = [part for pair in (labels or {}).items() if pair not in found for part in map(str, pair)]
    if len(values) > 1 or not _is_integer(values[0]) or str(values[0]) in others:
        raise _bad_labels(path, "The value to ignore is not one integer of its own", labels)
    return int(values[0])


def read_ending(meta: Meta, path: Path, *, any_format: bool = False) -> str:
    """Give the file ending of the images."""
    ending = meta.get("file_ending", ENDING)
    if ending not in NIFTI_ENDINGS and not (any_format and ending in ITK_ENDINGS):
        do = (
            "semivox import converts NRRD and MetaImage files"
            if ending in ITK_ENDINGS
            else "convert to NIfTI"
        )
        raise UserError("The format is not supported yet", path=path, found=ending, expected=".nii.gz", do=do)
    return str(ending)


def read_order(meta: Meta, path: Path) -> tuple[str, ...]:
    """Give the names of training cases in the order that splits follow; empty where none is declared."""
    order = meta.get("order", [])
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise UserError(
            "The order of the cases is malformed",
            path=path,
            found=f"order: {order!r}"[:200],
            expected="a list of names of training cases",
            do="correct it, or leave it out",
        )
    return tuple(order)


def _parts(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Classes of single values from regions that may overlap."""
    sets = [(str(name), value if isinstance(value, list) else [value]) for name, value in labels.items()]
    if not all(values and all(isinstance(value, int) for value in values) for _, values in sets):
        raise _bad_labels(path, "A region is not a list of integers", labels)
    alone = [(name, values[0]) for name, values in sets if len(values) == 1]
    unnamed = {value for _, values in sets for value in values} - {value for _, value in alone}
    parts = alone + [(f"label_{value}", value) for value in sorted(unnamed)]
    names = [name for name, _ in parts] + [name for name, values in sets if len(values) > 1]
    if len(set(names)) < len(names):
        raise _bad_labels(path, "A region has the name of a class", labels)
    return dict(parts)


def _is_integer(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and re.fullmatch(r"-?\d+", value) is not None
    )


def _is_ignore(name: object, value: object) -> bool:
    return "ignore" in (str(name).lower(), str(value).lower())


def _bad_labels(path: Path, what: str, found: object) -> UserError:
    return UserError(
        what,
        path=path,
        found=f"labels: {found}",
        expected='names with different integers, e.g. "labels": {"background": 0, "liver": 1}',
        do="correct dataset.json",
    )
