"""What a `dataset.json` of nnU-Net or MSD form declares: channels, classes, regions, file ending, order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semivox.errors import UserError
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS

Meta = Mapping[str, Any]
Regions = Mapping[str, tuple[int, ...]]  # values on disk of the classes of each region


def read_channels(meta: Meta, path: Path) -> tuple[str, ...]:
    """Return the channel names of `channel_names` (nnU-Net) or `modality` (MSD), in order."""
    names = meta.get("channel_names", meta.get("modality"))
    if isinstance(names, Mapping) and names and sorted(names) == sorted(map(str, range(len(names)))):
        return tuple(str(names[str(index)]) for index in range(len(names)))
    if isinstance(names, list) and names:
        return tuple(map(str, names))
    expected = 'every channel\'s name, e.g. "channel_names": {"0": "T1", "1": "T2"}'
    what, found = "The channels are not declared", f"channel_names: {names!r}"
    raise UserError(what, found, expected, "correct dataset.json", path)


def read_classes(meta: Meta, path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and on-disk values of the classes, background first, the others by rising value.

    Where nnU-Net's regions are declared (lists of values, which may overlap), each value is a class: it has
    the name of the region that is this value alone, else `label_VALUE`. See `read_regions`.
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
    classes = sorted(((int(value), str(name)) for name, value in pairs), key=lambda one: (one[0] != 0, one))
    values = tuple(value for value, _ in classes)
    if 0 not in values:
        raise _bad_labels(path, "No class has the value 0", labels)
    if len(set(values)) < len(values):
        raise _bad_labels(path, "Two classes have the same value", labels)
    if len({name for _, name in classes}) < len(values):
        raise _bad_labels(path, "Two classes have the same name", labels)
    if not 2 <= len(values) <= 255:
        what = "There must be 1 to 254 classes beside the background"
        raise _bad_labels(path, what, f"{len(values)} in all")
    return tuple(name for _, name in classes), values


def _parts(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Make classes of single values from regions that may overlap."""
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


def read_ignore(meta: Meta, path: Path) -> int | None:
    """Return the value on disk of voxels that are not annotated: that of the class `ignore`, if any."""
    labels = meta.get("labels")
    pairs = list(labels.items()) if isinstance(labels, Mapping) else []
    found = [pair for pair in pairs if _is_ignore(*pair)]
    values = [name if str(value).lower() == "ignore" else value for name, value in found]
    if not values:
        return None
    others = [str(part) for pair in pairs if pair not in found for part in pair]
    if len(values) > 1 or not _is_integer(values[0]) or str(values[0]) in others:
        raise _bad_labels(path, "The value to ignore is not one integer of its own", labels)
    return int(values[0])


def read_regions(
    declared: Any, class_names: Sequence[str], class_values: Sequence[int], path: Path | None = None
) -> dict[str, tuple[int, ...]]:
    """Check a declaration such as {"whole_tumor": [1, 2, 4], "tumor_core": [1, 4]}; None: no regions.

    Args:
        declared: values on disk of each region.
        class_names: of the data set; a region has a name of its own.
        class_values: of the data set; a region takes foreground values from these.
        path: the file that declares them, for messages.

    Raises:
        UserError: another form, the name of a class, no or unknown values.
    """
    if declared is None:
        return {}
    if not isinstance(declared, Mapping) or not all(isinstance(v, list | tuple) for v in declared.values()):
        raise _bad_region(path, f"regions: {declared!r}", class_values)
    for name, values in declared.items():
        if name in class_names or not values or any(v == 0 or v not in class_values for v in values):
            raise _bad_region(path, f"{name}: {values!r}", class_values)
    return {str(name): tuple(dict.fromkeys(values)) for name, values in declared.items()}


def region_labels(meta: Meta) -> dict[str, list[int]] | None:
    """Return the regions of several values that nnU-Net's `labels` declare, for `read_regions`."""
    labels = meta.get("labels")
    items = labels.items() if isinstance(labels, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, list) and len(value) > 1} or None


def parse_regions(texts: Sequence[str]) -> dict[str, list[int]] | None:
    """Read `NAME=1,2,4`, one text a region; return None if there are none."""
    found: dict[str, list[int]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        try:
            found[name.strip()] = [int(value) for value in values.split(",")]
        except ValueError as error:
            expected = "NAME=VALUE,VALUE, e.g. tumor_core=1,4"
            raise UserError("A region is malformed", text, expected) from error
    return found or None


def read_ending(meta: Meta, path: Path, *, any_format: bool = False) -> str | None:
    """Return the declared file ending, with its dot; None: not declared, any NIfTI ending will do."""
    ending = meta.get("file_ending")
    if ending is None:
        return None
    dotted = str(ending).strip().lower()
    dotted = dotted if dotted.startswith(".") else f".{dotted}"
    if dotted in NIFTI_ENDINGS or (any_format and dotted in ITK_ENDINGS):
        return dotted
    is_itk = dotted in ITK_ENDINGS
    do = "semivox import converts NRRD and MetaImage files" if is_itk else "convert the files to NIfTI"
    raise UserError("The format is not supported yet", ending, ".nii.gz or .nii", do, path)


def read_order(meta: Meta, path: Path) -> tuple[str, ...]:
    """Return the names of training cases in the order that splits follow; empty where none is declared."""
    order = meta.get("order", [])
    if isinstance(order, list) and all(isinstance(name, str) for name in order):
        return tuple(order)
    what, expected = "The order of the cases is malformed", "a list of names of training cases"
    raise UserError(what, f"order: {order!r}"[:200], expected, "correct it, or leave it out", path)


def _is_integer(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+", value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ignore(name: object, value: object) -> bool:
    return "ignore" in (str(name).lower(), str(value).lower())


def _bad_labels(path: Path, what: str, found: object) -> UserError:
    expected = 'names with different integers, e.g. "labels": {"background": 0, "liver": 1}'
    return UserError(what, f"labels: {found}", expected, "correct dataset.json", path)


def _bad_region(path: Path | None, found: str, class_values: Sequence[int]) -> UserError:
    known = ", ".join(str(value) for value in class_values if value)
    expected = f"a name that no class has, and values among {known}"
    do = 'declare it in dataset.json, "regions": {"NAME": [1, 2]}, or as --region NAME=1,2'
    return UserError("A region cannot be used", found[:200], expected, do, path)
