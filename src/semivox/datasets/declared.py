"""What a `dataset.json` of nnU-Net or MSD form declares: channels, classes, file ending, order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semivox.errors import UserError, shortened
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS

Meta = Mapping[str, Any]
Regions = Mapping[str, tuple[int, ...]]  # values on disk of the classes of each region


@dataclass(frozen=True)
class Classes:
    """What label files hold."""

    names: tuple[str, ...]  # background first
    values: tuple[int, ...]  # on disk, of each class; that of the background is 0
    ignore: int | None = None  # on disk, of voxels that are not annotated; nothing is scored there
    regions: Regions = field(default_factory=dict)  # unions of classes, scored as rows that means leave out

    def changed(self, regions: Mapping[str, Sequence[int]] | None, ignore: int | None) -> Classes:
        """Replace what is not None; regions and a value to ignore that cannot be are a `UserError`."""
        if ignore is not None and ignore in self.values:
            expected = f"a value that is no class, so none of {shortened(self.values)}"
            raise UserError("The value to ignore is that of a class", ignore, expected, "correct --ignore")
        unions = self.regions if regions is None else read_regions(regions, self.names, self.values)
        return replace(self, regions=unions, ignore=self.ignore if ignore is None else ignore)


def read_channels(meta: Meta, path: Path) -> tuple[str, ...]:
    """Return the channel names of `channel_names` (nnU-Net) or `modality` (MSD), in order."""
    names = meta.get("channel_names", meta.get("modality"))
    if isinstance(names, list):
        names = {str(index): name for index, name in enumerate(names)}
    if isinstance(names, Mapping) and names and sorted(names) == sorted(map(str, range(len(names)))):
        return tuple(str(names[str(index)]) for index in range(len(names)))
    what, expected = "The channels are not declared", 'e.g. "channel_names": {"0": "T1", "1": "T2"}'
    raise UserError(what, f"channel_names: {names!r}", expected, "correct dataset.json", path)


def read_classes(meta: Meta, path: Path) -> Classes:
    """Return the classes of `labels`, background first, the others by rising value, and what goes with them.

    Where nnU-Net's regions are declared (lists of values, which may overlap), each value is a class: it has
    the name of the region that is this value alone, else `label_VALUE`. Lists of several values are scored as
    regions, unless the key `regions` declares others, see `read_regions`.
    """
    declared = meta.get("labels")
    pairs = [*declared.items()] if isinstance(declared, Mapping) else []
    ignored = [pair for pair in pairs if "ignore" in (str(part).lower() for part in pair)]
    pairs = [pair for pair in pairs if pair not in ignored]
    keys, found = [name for name, _ in pairs], [value for _, value in pairs]
    flipped = all(map(_is_integer, keys)) and not all(map(_is_integer, found))
    if flipped and list not in map(type, found):  # MSD: names by value
        pairs = [(str(name), value) for value, name in pairs]
    parts = [(name, value if isinstance(value, list) else [value]) for name, value in pairs]
    if wrong := [f"{name}: {one!r}" for name, its in parts for one in its or [its] if not _is_integer(one)]:
        raise _bad_classes(path, declared, wrong)
    unions = {name: tuple(map(int, its)) for name, its in parts if len(its) > 1}
    classes = [(int(its[0]), name) for name, its in parts if len(its) == 1]
    unnamed = {value for its in unions.values() for value in its}.difference(value for value, _ in classes)
    classes += [(value, f"label_{value}") for value in unnamed]
    classes.sort(key=lambda item: (item[0] != 0, item))
    values, names = tuple(value for value, _ in classes), tuple(name for _, name in classes)
    taken = [*names, *unions]
    twice = [f"{name}: {value}" for value, name in classes if values.count(value) + taken.count(name) > 2]
    ignore = [name if str(value).lower() == "ignore" else value for name, value in ignored]
    fits = len(ignore) < 2 and all(_is_integer(value) and int(value) not in values for value in ignore)
    if twice or not fits or not 2 <= len(classes) <= 255 or values[0] != 0:
        raise _bad_classes(path, declared, twice)
    regions = read_regions(meta.get("regions", unions), names, values, path)
    return Classes(names, values, int(ignore[0]) if ignore else None, regions)


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


def _is_integer(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+", value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


def _bad_classes(path: Path, declared: object, wrong: Sequence[str]) -> UserError:
    what = "The classes are not declared as names with one integer each"
    expected = (
        "0 for the background and other integers for 1 to 254 classes, each once,"
        ' e.g. "labels": {"background": 0, "liver": 1}; regions as lists of integers; "ignore" as an integer'
    )
    found = "; ".join([*([shortened(wrong)] if wrong else []), f"labels: {declared}"])
    return UserError(what, found[:500], expected, "correct dataset.json", path)
