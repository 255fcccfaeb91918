"""A download of a published data set: its cases, compared with published lists and put in their order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from semivox.datasets.importers.h5 import h5_case, load_h5
from semivox.datasets.importers.pairs import match_paths, visible_paths
from semivox.datasets.importers.source import CaseSource, Found, LabelFile, Loaded
from semivox.datasets.listing import missing_image
from semivox.errors import UserError, shortened, unknown


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What becomes of a download."""

    crop: Literal["none", "published"] = "none"  # the arrays that published code trains on
    split: str | None = None  # its name; None: the one that most papers use
    hu: tuple[float, float] | None = None  # pancreas-ct: the intensity window; None: -120 to 240
    modalities: Literal["flair", "all"] = "flair"  # brats2019: all are FLAIR, T1, T1ce and T2
    target: Literal["whole", "regions"] = "whole"  # brats2019: the whole tumor, or its parts as classes


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published data set: where its cases are in the download, and what becomes of them."""

    name: str  # of the data set and its lists of cases
    case: str = ""  # what comes before the part of a case's name that stands for {case} in the patterns
    form: str = "[^/]+"  # regular expression of {case}
    images: Mapping[str, str]  # channel names and the patterns of their files, see `match_paths`
    labels: str  # pattern of the label files
    load: Callable[[CaseSource], Loaded]  # reads a case of the download
    h5: Mapping[str, str]  # pattern of the published h5 files for each published split
    h5_spacing_mm: float = 1.0  # which the h5 files do not store
    h5_lacks: str = ""  # what the h5 files do not hold of what was asked for
    split: str  # the usual one
    classes: Mapping[str, int]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
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

    images = {channel: search(pattern) for channel, pattern in recipe.images.items()}
    scans, labels = next(iter(images.values())), search(recipe.labels)
    h5 = {split: files for split, pattern in recipe.h5.items() if (files := search(pattern))}
    if len(h5) > 1:
        what = "The folder mixes published forms of this data set, whose case numbers differ"
        names = ", ".join(next(iter(files.values())).name for files in h5.values())
        raise UserError(what, names, "files of one form", "name the folder of one of them", raw)
    if h5 and not (scans and options.crop == "none"):
        return _from_h5(recipe, raw, *h5.popitem(), options)
    cases = {}
    for name in scans:
        for channel, pattern in recipe.images.items():
            if name not in images[channel]:
                missing = raw / pattern.replace("{case}", name.removeprefix(recipe.case))
                raise missing_image(name, missing, channel)
        label = (LabelFile(labels[name]),) if name in labels else ()
        cases[name] = CaseSource(name, "train", tuple(files[name] for files in images.values()), label)
    alone = sorted(labels.keys() - scans.keys())
    strange = [f"{labels[name].name} (label of {name}, without a scan)" for name in alone]
    settings = recipe.settings if options.crop == "none" else ""
    texts = recipe.protocol, options.split or recipe.split, settings
    return _found(recipe, raw, cases, recipe.load, *texts, strange)


def _from_h5(
    recipe: Recipe, raw: Path, form: str, files: Mapping[str, Path], options: RecipeOptions
) -> Found:
    if recipe.h5_lacks:
        what, do = "The published h5 files do not hold what was asked for", "name the official download"
        raise UserError(what, recipe.h5_lacks, None, do, raw)

    def load(case: CaseSource) -> Loaded:
        return load_h5(case.labels[0].path, [recipe.h5_spacing_mm] * 3, binary=True)

    cases = {name: h5_case(name, path) for name, path in files.items()}
    return _found(recipe, raw, cases, load, recipe.h5_protocol, options.split or form, "", [])


def _found(
    recipe: Recipe,
    raw: Path,
    cases: Mapping[str, CaseSource],
    load: Callable[[CaseSource], Loaded],
    protocol: str,
    split_name: str,
    settings: str,
    strange: Sequence[str],
) -> Found:
    """Sort the cases of a download into those of the split, missing, superfluous and unknown ones."""
    splits = published_splits(recipe.name)
    if split_name not in splits:
        raise unknown(f"split of {recipe.name}", split_name, splits)
    split = splits[split_name]
    listed = (*split.train, *split.val, *split.test)
    extra = sorted(cases.keys() - set(listed))
    if not cases.keys() & set(listed):
        there = shortened(extra or sorted(path.name for path in raw.iterdir()), 5) or "an empty folder"
        expected = f"cases such as {listed[0]}, in the folders of the official download"
        do = "name the folder that was unpacked"
        raise UserError("None of the published cases was found", there, expected, do, raw)
    known = [cases[name] for name in listed if name in cases]
    chosen = [case._replace(pool="test" if case.name in split.test else "train") for case in known]
    parts: dict[str, tuple[list[str], str]] = {
        "missing": ([n for n in listed if n not in cases], f"of {len(listed)} published cases are missing"),
        "extra": (extra, "cases are not in the split and were left out"),
        "unlabeled": (
            [c.name for c in chosen if not c.labels],
            "cases have no label file and count as unlabeled",
        ),
        "unknown": (list(strange), "entries were not recognised"),
    }
    facts: dict[str, Any] = {
        "prepare": f" --preset {recipe.preset}{settings}",
        "split": {"name": split_name, "origin": split.origin},
        **{key: names for key, (names, _) in parts.items()},
    }
    description = f"{protocol} Split {split_name}: {split.origin}."
    remarks = [f"{len(names)} {text}: {shortened(names, 10)}" for names, text in parts.values() if names]
    return Found(
        cases=tuple(chosen),
        load=load,
        channels=tuple(recipe.images),
        classes=recipe.classes,
        description=description,
        order=(*split.train, *split.val),
        notes=(description, *remarks, *recipe.notes),
        facts=facts,
        regions=recipe.regions,
    )
