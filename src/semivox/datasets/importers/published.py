"""A published data set from its official download, by the published protocol.

The cases are compared with the lists of a published split and put in its order; what is missing and what does
not belong is told. Without `crop="published"` the scans keep their grid; that crop exists to repeat published
tables, and for the left atrium and the pancreas it was made with the labels of all cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from semivox.datasets.importers.crops import PREPARATIONS, orient_label
from semivox.datasets.importers.finders import match_paths, visible_paths
from semivox.datasets.importers.load import found_of
from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, LabelFile, Loaded
from semivox.errors import UserError, shortened, unknown
from semivox.io.formats import list_values
from semivox.io.geometry import onto_grid
from semivox.io.volume import read_image, read_values


class PublishedSplit(BaseModel):
    """Case names of a published split in their order."""

    origin: str  # repository, commit and files of the lists
    train: tuple[str, ...]
    val: tuple[str, ...] = ()
    test: tuple[str, ...]


class Recipe(BaseModel):
    """A published data set, `lists/NAME.json`: where its cases are in the download, what is done to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    case: str = ""  # what comes before the part of a case's name that stands for {case} in the patterns
    form: str = "[^/]+"  # regular expression of {case}
    channel: str
    organ: str  # the only class: all values other than 0
    images: str  # pattern of the scans, see `match_paths`
    labels: str  # pattern of the label files
    values: tuple[int, ...]  # that a label file may hold
    by_content: bool = False  # labels are laid by their content, since their headers are wrong
    protocol: str  # what is done to whole scans, one sentence
    crop_protocol: str  # and with the published crop
    preset: str
    settings: str  # what whole scans need besides the preset
    split: str  # the usual one
    h5: dict[str, str]  # pattern of the published h5 files for each published split
    h5_protocol: str
    h5_spacing_mm: float = 1.0  # which the h5 files do not store
    notes: tuple[str, ...] = ()  # more to tell
    splits: dict[str, PublishedSplit]


def read_recipe(name: str) -> Recipe:
    """Read a recipe that the package ships."""
    file = resources.files("semivox.datasets.importers") / "lists" / f"{name}.json"
    return Recipe.model_validate_json(file.read_text(encoding="utf-8"))


def find_published(name: str, raw: Path, crop: str | None, split: str | None) -> Found:
    """Find the cases of a download; where it holds both forms, h5 serves `crop="published"` only."""
    recipe, paths, is_crop = read_recipe(name), visible_paths(raw), crop == "published"

    def search(pattern: str) -> dict[str, Path]:
        found = match_paths(paths, pattern, raw, recipe.form)
        return {recipe.case + case: path for case, path in found.items()}

    scans, labels = search(recipe.images), search(recipe.labels)
    h5 = {name: files for name, pattern in recipe.h5.items() if (files := search(pattern))}
    if len(h5) > 1:
        what = "The folder mixes published forms of this data set, whose case numbers differ"
        names = ", ".join(next(iter(files.values())).name for files in h5.values())
        raise UserError(what, names, "files of one form", "name the folder of one of them", raw)
    options = ImportOptions(
        channels=(recipe.channel,), classes={recipe.organ: 1}, spacing_mm=(recipe.h5_spacing_mm,) * 3
    )
    if h5 and (is_crop or not scans):
        form, scans = h5.popitem()
        found = found_of(_cases(recipe, scans, scans), options, recipe.h5_protocol)
        return _as_published(found, recipe, raw, split or form, "", [])
    protocol = recipe.crop_protocol if is_crop else recipe.protocol
    found = replace(
        found_of(_cases(recipe, scans, labels), options, protocol), load=partial(_load, recipe, is_crop)
    )
    alone = sorted(labels.keys() - scans.keys())
    strange = [f"{labels[name].name} (label of {name}, without a scan)" for name in alone]
    return _as_published(
        found, recipe, raw, split or recipe.split, "" if is_crop else recipe.settings, strange
    )


def _cases(recipe: Recipe, scans: Mapping[str, Path], labels: Mapping[str, Path]) -> list[CaseSource]:
    files = {name: (LabelFile(path, recipe.organ),) for name, path in labels.items()}
    return [CaseSource(name, "train", (path,), files.get(name, ())) for name, path in scans.items()]


def _load(recipe: Recipe, is_crop: bool, case: CaseSource) -> Loaded:
    """Read a case, refuse label values that the data set does not have, and crop it if asked."""
    image, label, how, path = read_image(case.images, 1), None, "", case.files[-1]
    if case.labels:
        stored = read_values(path)
        if (wrong := ~np.isin(stored.array, recipe.values)).any():
            what = "The label holds values that this data set does not have"
            do = "download the file again; for labels of your own use semivox import with patterns"
            expected = ", ".join(map(str, recipe.values))
            raise UserError(what, list_values(stored.array[wrong]), expected, do, path)
        if recipe.by_content:
            laid, how = orient_label(stored, image, path)
        else:
            laid = onto_grid(stored, image, path)
        label = (laid != 0).astype(np.uint8)
    loaded = PREPARATIONS[recipe.name](Loaded(image, label), is_crop, case.name, path)
    return loaded._replace(facts={"orientation": how} if how else {})


def _as_published(
    found: Found, recipe: Recipe, raw: Path, split_name: str, settings: str, strange: Sequence[str]
) -> Found:
    """Sort the cases of a download into those of the split, missing, superfluous and unknown ones."""
    by_name = {case.name: case for case in found.cases}
    if split_name not in recipe.splits:
        raise unknown(f"split of {recipe.name}", split_name, recipe.splits)
    split = recipe.splits[split_name]
    listed = (*split.train, *split.val, *split.test)
    extra, known = sorted(by_name.keys() - {*listed}), [by_name[name] for name in listed if name in by_name]
    if not known:
        there = shortened(extra or sorted(path.name for path in raw.iterdir()), 5) or "an empty folder"
        expected = f"cases such as {listed[0]}, in the folders of the official download"
        do = "name the folder that was unpacked"
        raise UserError("None of the published cases was found", there, expected, do, raw)
    unlabeled = [case.name for case in known if not case.labels]
    remarks = {
        "missing": (f"of {len(listed)} published cases are missing", [n for n in listed if n not in by_name]),
        "extra": ("cases are not in the split and were left out", extra),
        "unlabeled": ("cases have no label file and count as unlabeled", unlabeled),
        "unknown": ("entries were not recognised", strange),
    }
    description = f"{found.description} Split {split_name}: {split.origin}."
    notes = [f"{len(names)} {text}: {shortened(names, 10)}" for text, names in remarks.values() if names]
    facts: dict[str, Any] = {
        "prepare": f" --preset {recipe.preset}{settings}",
        "split": {"name": split_name, "origin": split.origin},
        **{key: names for key, (_, names) in remarks.items()},
    }
    return replace(
        found,
        cases=tuple(case._replace(pool="test" if case.name in split.test else "train") for case in known),
        description=description,
        order=(*split.train, *split.val),
        notes=(description, *notes, *recipe.notes),
        facts=facts,
    )
