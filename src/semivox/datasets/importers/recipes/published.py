"""What the recipes share: published case lists, the check of a download against them, the published crop."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from semivox.datasets.importers.source import CaseSource, Found, Loaded
from semivox.datasets.listing import Pool
from semivox.errors import UserError, shortened
from semivox.io.formats import Array, list_values
from semivox.io.volume import Volume


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """See `run_recipe`."""

    crop: Literal["none", "published"] = "none"
    split: str | None = None
    hu: tuple[float, float] | None = None
    modalities: Literal["flair", "all"] = "flair"
    target: Literal["whole", "regions"] = "whole"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the record."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


@dataclass(frozen=True)
class PublishedSplit:
    """A published split: case names in the published order, of which the first ones are the labeled ones.

    Attributes:
        name: of the split.
        origin: repository, commit and files of the lists.
        train, val, test: case names.
    """

    name: str
    origin: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def pool(self, case: str) -> Pool:
        """Return the pool of a case; validation cases are training cases that come last in the order."""
        return "test" if case in self.test else "train"


def published_splits(recipe: str) -> dict[str, PublishedSplit]:
    """Read the shipped lists of a data set."""
    file = resources.files("semivox.datasets.importers.recipes") / "lists" / f"{recipe}.json"
    return {
        name: PublishedSplit(
            name, entry["origin"], *(tuple(entry.get(role, ())) for role in ("train", "val", "test"))
        )
        for name, entry in json.loads(file.read_text(encoding="utf-8")).items()
    }


def choose_split(recipe: str, wanted: str) -> PublishedSplit:
    """Return a split by name.

    Raises:
        UserError: an unknown name.
    """
    splits = published_splits(recipe)
    if wanted not in splits:
        what, do = f"{recipe} has no split of this name", "choose one of these with --split"
        raise UserError(what, wanted, ", ".join(splits), do)
    return splits[wanted]


@dataclass(frozen=True)
class Case:
    """A case of the download: the files and folders it is made from, label last, and what reads them."""

    files: tuple[Path, ...]
    load: Callable[[], Loaded]
    labeled: bool = True


def make_found(
    raw: Path,
    split: PublishedSplit,
    cases: Mapping[str, Case],
    *,
    channels: tuple[str, ...],
    classes: Mapping[str, int],
    protocol: str,
    prepare: str,
    unknown: Sequence[str] = (),
    notes: Sequence[str] = (),
    regions: Mapping[str, tuple[int, ...]] | None = None,
) -> Found:
    """Sort the cases of a download into those of the split, missing, superfluous and unknown ones.

    Args:
        raw: the download.
        split: which cases belong to it.
        cases: those found, by published name.
        channels: names.
        classes: value of each class.
        protocol: what was done to the scans, one sentence.
        prepare: options of `semivox prepare` that go with it.
        unknown: files or folders that look like cases but are not recognised.
        notes: more to tell.
        regions: unions of classes that are scored too.

    Raises:
        UserError: none of the split's cases was found.
    """
    listed = (*split.train, *split.val, *split.test)
    missing = [name for name in listed if name not in cases]
    extra = sorted(cases.keys() - set(listed))
    unlabeled = [name for name in listed if name in cases and not cases[name].labeled]
    if len(missing) == len(listed):
        there = shortened(extra or sorted(path.name for path in raw.iterdir()), 5) or "an empty folder"
        expected = f"cases such as {listed[0]}, in the folders of the official download"
        do = "name the folder that was unpacked"
        raise UserError("None of the published cases was found", there, expected, do, raw)
    remarks = [f"{protocol} Split {split.name}: {split.origin}."]
    for names, text in (
        (missing, f"{len(missing)} of {len(listed)} published cases are missing: "),
        (extra, f"{len(extra)} cases are not in the split and were left out: "),
        (unlabeled, f"{len(unlabeled)} cases have no label file and count as unlabeled: "),
        (list(unknown), f"{len(unknown)} entries were not recognised: "),
    ):
        remarks += [text + shortened(names, 10)] if names else []
    sources = tuple(
        CaseSource(name, split.pool(name), case.labeled, case.load, case.files)
        for name in listed
        if (case := cases.get(name)) is not None
    )
    return Found(
        sources,
        channels,
        dict(classes),
        description=remarks[0],
        order=(*split.train, *split.val),
        notes=(*remarks, *notes),
        facts={
            "prepare": prepare,
            "split": {"name": split.name, "origin": split.origin},
            "missing": missing,
            "extra": extra,
            "unlabeled": unlabeled,
            "unknown": list(unknown),
        },
        regions=regions or {},
    )


def unique(found: Sequence[tuple[str, Path]], raw: Path) -> dict[str, Path]:
    """Make a table of names and paths.

    Raises:
        UserError: a name that is there twice.
    """
    table: dict[str, Path] = {}
    for name, path in found:
        if name in table:
            both = f"{table[name].relative_to(raw)} and {path.relative_to(raw)}"
            do = "move one of them away"
            raise UserError(f"Case {name} is there twice", both, "each case once", do, raw)
        table[name] = path
    return table


def check_values(label: Array, allowed: Sequence[int], path: Path) -> None:
    """Refuse label values that a data set does not have."""
    if (wrong := ~np.isin(label, allowed)).any():
        what = "The label holds values that this data set does not have"
        do = "download the file again; for labels of your own use semivox import with patterns"
        raise UserError(what, list_values(label[wrong]), ", ".join(map(str, allowed)), do, path)


def margins(name: str, low: Sequence[int], high: Sequence[int]) -> Array:
    """Draw the margins before and behind each axis, (2, axes), uniform in low..high, fixed by the name.

    The published code draws them without a seed, so that no two preparations agree; here they always do.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.asarray(rng.integers(low, np.asarray(high) + 1, size=(2, len(low))))


def crop_in_plane(loaded: Loaded, target: Sequence[int], margin: Array, path: Path) -> Loaded:
    """Crop X and Y around the label as the published preparations do; Z stays whole.

    The box is the label's, widened to `target` where it is smaller, plus the margins. Its upper end is
    exclusive and counts from the last labeled voxel, as in the published code.

    Args:
        loaded: image and label.
        target: smallest (X, Y) size.
        margin: (2, 2), voxels before and behind along X and Y.
        path: of the label, for the message.

    Raises:
        UserError: a label without any foreground.
    """
    assert loaded.label is not None
    box: list[slice] = []
    for axis in range(2):
        inside = np.flatnonzero((loaded.label != 0).any(axis=(1 - axis, 2)))
        if inside.size == 0:
            what, do = "The published crop needs a label", "download the file again, or leave out --crop"
            raise UserError(what, "no foreground voxel", "a label", do, path)
        first, last = int(inside[0]), int(inside[-1])
        pad = max(target[axis] - (last - first), 0) // 2
        start = max(first - int(margin[0, axis]) - pad, 0)
        box.append(slice(start, min(last + int(margin[1, axis]) + pad, loaded.label.shape[axis])))
    return crop_to(loaded, (*box, slice(0, loaded.label.shape[2])))


def crop_to(loaded: Loaded, box: tuple[slice, ...]) -> Loaded:
    """Cut a box out of image and label; the affine moves along."""
    affine = loaded.image.affine.copy()
    affine[:3, 3] = affine[:3, :3] @ [part.start for part in box] + affine[:3, 3]
    label = None if loaded.label is None else loaded.label[box]
    return Loaded(Volume(loaded.image.array[(slice(None), *box)], affine), label)


def zscored(image: Volume, mask: Array | None = None) -> Volume:
    """Return the image with mean 0 and deviation 1 over all voxels, or over those of `mask` (C, X, Y, Z)."""
    array = np.empty_like(image.array, np.float32)
    for index, channel in enumerate(image.array.astype(np.float64)):
        values = channel if mask is None else channel[mask[index]]
        array[index] = (channel - values.mean()) / max(float(values.std()), 1e-12)
    return Volume(array, image.affine)
