"""What the recipes share: published case lists, the check of a download against them, the published crop."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from semivox.datasets.importers.h5 import load_h5
from semivox.datasets.importers.pairs import match_paths, visible_paths
from semivox.datasets.importers.source import CaseSource, Found, Loaded
from semivox.datasets.listing import Pool, missing_image
from semivox.errors import UserError, shortened, unknown
from semivox.io.formats import Array, list_values
from semivox.io.volume import Volume, read_values


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """See `run_recipe`."""

    crop: Literal["none", "published"] = "none"
    split: str | None = None
    hu: tuple[float, float] | None = None
    modalities: Literal["flair", "all"] = "flair"
    target: Literal["whole", "regions"] = "whole"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published data set: where its cases are in the download, and what becomes of them.

    Attributes:
        name: of the data set and its lists of cases.
        case: what comes before the part of a case's name that stands for {case} in the patterns.
        form: regular expression of {case}.
        images: channel names and the patterns of their files or folders, see `match_paths`.
        labels: pattern of the label files.
        load: reads image files, label file and case name.
        h5: pattern of the published h5 files for each published split.
        h5_load: reads an h5 file and an affine.
        h5_spacing_mm: which the h5 files do not store.
        h5_lacks: what the h5 files do not hold of what was asked for.
        split: the usual one.
        classes: value of each class.
        protocol: what was done to the scans of the download, one sentence.
        h5_protocol: what was done to those of the h5 files.
        preset: of the data set.
        settings: what whole scans need besides.
        regions: unions of classes that are scored too.
        notes: more to tell.
    """

    name: str
    case: str = ""
    form: str = "[^/]+"
    images: Mapping[str, str]
    labels: str
    load: Callable[[tuple[Path, ...], Path | None, str], Loaded]
    h5: Mapping[str, str]
    h5_load: Callable[[Path, Array], Loaded] = load_h5
    h5_spacing_mm: float = 1.0
    h5_lacks: str = ""
    split: str
    classes: Mapping[str, int]
    protocol: str
    h5_protocol: str
    preset: str
    settings: str = ""
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedSplit:
    """Case names of a published split in their order; `origin`: repository, commit and files of the lists."""

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


def find_published(recipe: Recipe, raw: Path, options: RecipeOptions) -> Found:
    """Find the cases of a download; where it holds both forms, h5 serves `crop="published"` only."""
    paths = visible_paths(raw)

    def search(pattern: str) -> dict[str, Path]:
        return {
            recipe.case + case: path for case, path in match_paths(paths, pattern, raw, recipe.form).items()
        }

    images = {channel: search(pattern) for channel, pattern in recipe.images.items()}
    labels = search(recipe.labels)
    scans = next(iter(images.values()))
    h5 = {split: files for split, pattern in recipe.h5.items() if (files := search(pattern))}
    if len(h5) > 1:
        what = "The folder mixes published forms of this data set, whose case numbers differ"
        names = ", ".join(next(iter(files.values())).name for files in h5.values())
        raise UserError(what, names, "files of one form", "name the folder of one of them", raw)
    if not h5 or (scans and options.crop == "none"):
        cases = {
            name: _case(recipe, name, [files.get(name) for files in images.values()], labels.get(name), raw)
            for name in scans
        }
        settings = recipe.settings if options.crop == "none" else ""
        alone = sorted(labels.keys() - scans.keys())
        strange = [f"{labels[name].name} (label of {name}, without a scan)" for name in alone]
        split = choose_split(recipe.name, options.split or recipe.split)
        return _found(recipe, raw, split, cases, recipe.protocol, settings, strange)
    if recipe.h5_lacks:
        what, do = "The published h5 files do not hold what was asked for", "name the official download"
        raise UserError(what, recipe.h5_lacks, None, do, raw)
    ((form, files),) = h5.items()
    affine = np.diag([*[recipe.h5_spacing_mm] * 3, 1.0])
    cases = {
        name: CaseSource(name, "train", True, partial(recipe.h5_load, path, affine), (path,))
        for name, path in files.items()
    }
    split = choose_split(recipe.name, options.split or form)
    return _found(recipe, raw, split, cases, recipe.h5_protocol, "", [])


def _case(
    recipe: Recipe, name: str, images: Sequence[Path | None], label: Path | None, raw: Path
) -> CaseSource:
    for (channel, pattern), path in zip(recipe.images.items(), images, strict=True):
        if path is None:
            raise missing_image(
                name, raw / pattern.replace("{case}", name.removeprefix(recipe.case)), channel
            )
    files = tuple(path for path in images if path is not None)
    load = partial(recipe.load, files, label, name)
    return CaseSource(name, "train", label is not None, load, (*files, *([label] if label else [])))


def choose_split(recipe: str, wanted: str) -> PublishedSplit:
    """Return a published split by name."""
    splits = published_splits(recipe)
    if wanted not in splits:
        raise unknown(f"split of {recipe}", wanted, splits)
    return splits[wanted]


def _found(
    recipe: Recipe,
    raw: Path,
    split: PublishedSplit,
    cases: Mapping[str, CaseSource],
    protocol: str,
    settings: str,
    strange: Sequence[str],
) -> Found:
    """Sort the cases of a download into those of the split, missing, superfluous and unknown ones."""
    listed = (*split.train, *split.val, *split.test)
    extra = sorted(cases.keys() - set(listed))
    if not cases.keys() & set(listed):
        there = shortened(extra or sorted(path.name for path in raw.iterdir()), 5) or "an empty folder"
        expected = f"cases such as {listed[0]}, in the folders of the official download"
        do = "name the folder that was unpacked"
        raise UserError("None of the published cases was found", there, expected, do, raw)
    chosen = [replace(cases[name], pool=split.pool(name)) for name in listed if name in cases]
    missing = [name for name in listed if name not in cases]
    unlabeled = [case.name for case in chosen if not case.labeled]
    parts = {
        "missing": (missing, f"of {len(listed)} published cases are missing"),
        "extra": (extra, "cases are not in the split and were left out"),
        "unlabeled": (unlabeled, "cases have no label file and count as unlabeled"),
        "unknown": (list(strange), "entries were not recognised"),
    }
    origin = {"name": split.name, "origin": split.origin}
    description = f"{protocol} Split {split.name}: {split.origin}."
    remarks = [f"{len(names)} {text}: {shortened(names, 10)}" for names, text in parts.values() if names]
    return Found(
        tuple(chosen),
        tuple(recipe.images),
        recipe.classes,
        description,
        order=(*split.train, *split.val),
        notes=(description, *remarks, *recipe.notes),
        facts={
            "prepare": f" --preset {recipe.preset}{settings}",
            "split": origin,
            **{key: names for key, (names, _) in parts.items()},
        },
        regions=recipe.regions,
    )


def checked_values(path: Path, allowed: Sequence[int]) -> Volume:
    """Read a label map; refuse values that the data set does not have."""
    label = read_values(path)
    if (wrong := ~np.isin(label.array, allowed)).any():
        what = "The label holds values that this data set does not have"
        do = "download the file again; for labels of your own use semivox import with patterns"
        raise UserError(what, list_values(label.array[wrong]), ", ".join(map(str, allowed)), do, path)
    return label


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
        path: of the case, for the message.
    """
    label = loaded.label
    if label is None or not label.any():
        what, do = "The published crop needs a label", "download the case again, or leave out --crop"
        raise UserError(what, "no label file, or an empty one", None, do, path)
    box: list[slice] = []
    for axis in range(2):
        inside = np.flatnonzero(label.any(axis=(1 - axis, 2)))
        first, last = int(inside[0]), int(inside[-1])
        pad = max(target[axis] - (last - first), 0) // 2
        start = max(first - int(margin[0, axis]) - pad, 0)
        box.append(slice(start, min(last + int(margin[1, axis]) + pad, label.shape[axis])))
    return crop_to(loaded, (*box, slice(0, label.shape[2])))


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
