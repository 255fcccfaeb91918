"""A published data set from its official download, by the published protocol.

The cases are compared with the lists of a published split and put in its order; what is missing and what does
not belong is told. Without `crop="published"` the scans keep their grid; that crop exists to repeat published
tables, and for the left atrium and the pancreas it was made with the labels of all cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from semivox.datasets.case import Pool
from semivox.datasets.importers.crops import orient_label, published_crop, windowed
from semivox.datasets.importers.finders import match_paths, visible_paths
from semivox.datasets.importers.source import CaseSource, Found
from semivox.errors import UserError, shortened, unknown
from semivox.io.formats import Array, bad_file, list_values
from semivox.io.geometry import Volume, onto_grid
from semivox.io.volume import read_image, read_values

RECIPES = ("la2018", "pancreas-ct", "brats2019")
_Paths = Mapping[str, Path]  # by case


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
    prefix: str  # of a case's name, before what stands for {case} in the patterns
    form: str  # regular expression of {case}
    channel: str
    organ: str  # the only class: all values other than 0
    images: str  # pattern of the scans, see `match_paths`
    labels: str  # pattern of the label files
    values: tuple[int, ...]  # that a label file may hold
    by_content: bool  # labels are laid by their content, since their headers are wrong
    protocols: dict[str, str]  # what is done to whole scans ("none"), for the published crop, to h5 files
    preset: str
    settings: str  # what whole scans need besides the preset
    split: str  # the usual one
    h5: dict[str, str]  # pattern of the published h5 files for each published split
    h5_spacing_mm: float  # which the h5 files do not store
    notes: tuple[str, ...]  # more to tell
    splits: dict[str, PublishedSplit]


def read_recipe(name: str) -> Recipe:
    """Read a recipe that the package ships."""
    file = resources.files("semivox.datasets.importers") / "lists" / f"{name}.json"
    return Recipe.model_validate_json(file.read_text(encoding="utf-8"))


def find_published(name: str, source: Path, *, crop: str = "none", split: str | None = None) -> Found:
    """Find the cases of a download; where it holds both forms, h5 serves `crop="published"` only."""
    recipe, paths = read_recipe(name), visible_paths(source)

    def search(pattern: str) -> dict[str, Path]:
        found = match_paths(paths, pattern, source, recipe.form)
        return {recipe.prefix + case: path for case, path in found.items()}

    form, usual, scans, labels = crop, recipe.split, search(recipe.images), search(recipe.labels)
    h5 = {name: files for name, pattern in recipe.h5.items() if (files := search(pattern))}
    if len(h5) > 1:
        what = "The folder mixes published forms of this data set, whose case numbers differ"
        names = ", ".join(next(iter(files.values())).name for files in h5.values())
        raise UserError(what, names, "files of one form", "name the folder of one of them", source)
    if h5 and (crop == "published" or not scans):
        form, (usual, scans) = "h5", h5.popitem()
        labels = scans
    return _by_split(recipe, form, split or usual, scans, labels, source)


def _by_split(recipe: Recipe, form: str, name: str, scans: _Paths, labels: _Paths, source: Path) -> _Download:
    """Take the cases of a split in its order, and tell what is missing, superfluous and unknown."""
    if name not in recipe.splits:
        raise unknown(f"split of {recipe.name}", name, recipe.splits)
    split = recipe.splits[name]
    listed = (*split.train, *split.val, *split.test)
    present = [case for case in listed if case in scans]
    missing = [case for case in listed if case not in scans]
    unlabeled = [case for case in present if case not in labels]
    extra, alone = sorted(scans.keys() - {*listed}), sorted(labels.keys() - scans.keys())
    strange = [f"{labels[case].name} (label of {case}, without a scan)" for case in alone]
    if not present:
        there = shortened(extra or sorted(path.name for path in source.iterdir()), 5) or "an empty folder"
        expected = f"cases such as {listed[0]}, in the folders of the official download"
        do = "name the folder that was unpacked"
        raise UserError("None of the published cases was found", there, expected, do, source)
    pools: dict[str, Pool] = dict.fromkeys(split.test, "test")
    masks = {case: {path: recipe.organ} for case, path in labels.items()}
    description = f"{recipe.protocols[form]} Split {name}: {split.origin}."
    prepare = f" --preset {recipe.preset}{recipe.settings if form == 'none' else ''}"
    return _Download(
        [CaseSource(case, (scans[case],), masks.get(case, {}), pools.get(case, "train")) for case in present],
        description,
        channels=(recipe.channel,),
        classes={recipe.organ: 1},
        order=(*split.train, *split.val),
        spacing_mm=[recipe.h5_spacing_mm] * 3,
        name=recipe.name,
        notes=[description, *recipe.notes],
        remarks={
            "missing": (f"{len(missing)} of {len(listed)} published cases are missing", missing),
            "extra": ("cases are not in the split and were left out", extra),
            "unlabeled": ("cases have no label file and count as unlabeled", unlabeled),
            "unknown": ("entries were not recognised", strange),
        },
        facts={"prepare": prepare, "split": {"name": name, "origin": split.origin}},
        recipe=recipe,
        form=form,
    )


@dataclass(frozen=True, kw_only=True)
class _Download(Found):
    recipe: Recipe
    form: str  # crop of whole scans, "none" or "published"; or "h5", files that are taken as they are

    def load(self, case: CaseSource) -> tuple[Volume, Array | None, dict[str, str]]:
        """Read a case, refuse label values that the data set does not have, and crop it if asked."""
        if self.form == "h5":
            return super().load(case)
        recipe, image, label = self.recipe, read_image(case.images, 1), None
        facts: dict[str, str] = {}
        for path in case.labels:
            stored = read_values(path)
            if (wrong := ~np.isin(stored.array, recipe.values)).any():
                what = "The label holds values that this data set does not have"
                do = "download the file again; for labels of your own use semivox import with patterns"
                raise bad_file(path, what, list_values(stored.array[wrong]), recipe.values, do)
            if recipe.by_content:
                laid, facts["orientation"] = orient_label(stored, image, path)
            else:
                laid = onto_grid(stored, image, path)
            label = (laid != 0).astype(np.uint8)
        if self.form == "published":
            image, label = published_crop(recipe.name, case.name, image, label)
        elif recipe.name == "pancreas-ct":
            image = windowed(image)
        return image, label, facts
