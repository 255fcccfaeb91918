"""A download of a published data set: its cases, compared with published lists and put in their order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from semivox.datasets.importers.h5 import h5_case, load_h5
from semivox.datasets.importers.pairs import match_paths, visible_paths
from semivox.datasets.importers.source import CaseSource, Found, LabelFile, Loaded
from semivox.errors import UserError, shortened, unknown


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What becomes of a download."""

    crop: Literal["none", "published"] = "none"  # the arrays that published code trains on
    split: str | None = None  # its name; None: the one that most papers use


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published data set: where its cases are in the download, and what becomes of them."""

    name: str  # of the data set and its lists of cases
    case: str = ""  # what comes before the part of a case's name that stands for {case} in the patterns
    form: str = "[^/]+"  # regular expression of {case}
    channel: str
    images: str  # pattern of the scans, see `match_paths`
    labels: str  # pattern of the label files
    load: Callable[[CaseSource], Loaded]  # reads a case of the download
    h5: Mapping[str, str]  # pattern of the published h5 files for each published split
    h5_spacing_mm: float = 1.0  # which the h5 files do not store
    split: str  # the usual one
    classes: Mapping[str, int]
    protocol: str  # what was done to the scans of the download, one sentence
    h5_protocol: str  # and to those of the h5 files
    preset: str
    settings: str  # what whole scans need besides the preset
    notes: tuple[str, ...] = ()  # more to tell


class PublishedSplit(NamedTuple):
    """Case names of a published split in their order; `origin`: repository, commit and files of the lists."""

    origin: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


def published_splits(recipe: str) -> dict[str, PublishedSplit]:
    """Read the shipped lists of a data set."""
    file = resources.files("semivox.datasets.importers.recipes") / "lists" / f"{recipe}.json"
    lists = json.loads(file.read_text(encoding="utf-8"))
    roles = ("train", "val", "test")
    return {
        name: PublishedSplit(entry["origin"], *(tuple(entry.get(role, ())) for role in roles))
        for name, entry in lists.items()
    }


def find_published(recipe: Recipe, raw: Path, options: RecipeOptions) -> Found:
    """Find the cases of a download; where it holds both forms, h5 serves `crop="published"` only."""
    paths = visible_paths(raw)

    def search(pattern: str) -> dict[str, Path]:
        found = match_paths(paths, pattern, raw, recipe.form)
        return {recipe.case + case: path for case, path in found.items()}

    scans, labels = search(recipe.images), search(recipe.labels)
    h5 = {split: files for split, pattern in recipe.h5.items() if (files := search(pattern))}
    if len(h5) > 1:
        what = "The folder mixes published forms of this data set, whose case numbers differ"
        names = ", ".join(next(iter(files.values())).name for files in h5.values())
        raise UserError(what, names, "files of one form", "name the folder of one of them", raw)
    if h5 and not (scans and options.crop == "none"):
        form, files = h5.popitem()
        load = partial(_load_h5, spacing_mm=recipe.h5_spacing_mm)
        cases = [h5_case(name, path) for name, path in files.items()]
        return _found(recipe, raw, cases, load, recipe.h5_protocol, options.split or form, "", [])
    cases = [
        CaseSource(name, "train", (path,), (LabelFile(labels[name]),) if name in labels else ())
        for name, path in scans.items()
    ]
    alone = sorted(labels.keys() - scans.keys())
    strange = [f"{labels[name].name} (label of {name}, without a scan)" for name in alone]
    settings = recipe.settings if options.crop == "none" else ""
    texts = recipe.protocol, options.split or recipe.split, settings
    return _found(recipe, raw, cases, recipe.load, *texts, strange)


def _load_h5(case: CaseSource, spacing_mm: float) -> Loaded:
    return load_h5(case.labels[0].path, [spacing_mm] * 3, binary=True)


def _found(
    recipe: Recipe,
    raw: Path,
    cases: Sequence[CaseSource],
    load: Callable[[CaseSource], Loaded],
    protocol: str,
    split_name: str,
    settings: str,
    strange: Sequence[str],
) -> Found:
    """Sort the cases of a download into those of the split, missing, superfluous and unknown ones."""
    splits, by_name = published_splits(recipe.name), {case.name: case for case in cases}
    if split_name not in splits:
        raise unknown(f"split of {recipe.name}", split_name, splits)
    split = splits[split_name]
    listed = (*split.train, *split.val, *split.test)
    extra, known = sorted(by_name.keys() - {*listed}), [by_name[name] for name in listed if name in by_name]
    if not known:
        there = shortened(extra or sorted(path.name for path in raw.iterdir()), 5) or "an empty folder"
        expected = f"cases such as {listed[0]}, in the folders of the official download"
        do = "name the folder that was unpacked"
        raise UserError("None of the published cases was found", there, expected, do, raw)
    parts = {
        "missing": [name for name in listed if name not in by_name],
        "extra": extra,
        "unlabeled": [case.name for case in known if not case.labels],
        "unknown": list(strange),
    }
    texts = (
        f"of {len(listed)} published cases are missing",
        "cases are not in the split and were left out",
        "cases have no label file and count as unlabeled",
        "entries were not recognised",
    )
    remarks = zip(parts.values(), texts, strict=True)
    description = f"{protocol} Split {split_name}: {split.origin}."
    notes = [f"{len(names)} {text}: {shortened(names, 10)}" for names, text in remarks if names]
    return Found(
        cases=tuple(case._replace(pool="test" if case.name in split.test else "train") for case in known),
        load=load,
        channels=(recipe.channel,),
        classes=recipe.classes,
        description=description,
        order=(*split.train, *split.val),
        notes=(description, *notes, *recipe.notes),
        facts={
            "prepare": f" --preset {recipe.preset}{settings}",
            "split": {"name": split_name, "origin": split.origin},
            **parts,
        },
    )
