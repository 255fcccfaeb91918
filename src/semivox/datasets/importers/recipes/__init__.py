"""Published data sets from their official downloads, by the published protocol.

A recipe finds the cases of a download, says what is missing and what does not belong, and puts them into the
order of a published split. Without `crop="published"` the scans keep their grid; that crop exists to repeat
published tables, and for the left atrium and the pancreas it was made with the labels of all cases.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Literal

from semivox.datasets.dataset import Dataset
from semivox.datasets.importers.convert import convert
from semivox.datasets.importers.recipes.published import RecipeOptions, find_published
from semivox.datasets.importers.source import plain
from semivox.errors import UserError, unknown
from semivox.progress import Progress

RECIPES = {"la2018": "la2018", "pancreas-ct": "pancreas_ct", "brats2019": "brats2019"}


def run_recipe(
    name: str,
    raw: Path,
    out: Path,
    *,
    crop: Literal["none", "published"] = "none",
    split: str | None = None,
    hu: tuple[float, float] | None = None,
    modalities: Literal["flair", "all"] = "flair",
    target: Literal["whole", "regions"] = "whole",
    progress: Progress | None = None,
) -> Dataset:
    """Convert a download to a data set whose order and test cases are those of a published split.

    Args:
        name: la2018, pancreas-ct or brats2019.
        raw: the folder of the download; what is looked for may lie at any depth.
        out: the new data set; `import.json` in it tells what was found, missing and left out.
        crop: "published" makes the arrays that published code trains on: cropped and normalised.
        split: name of the split; None: the one that most papers use.
        hu: pancreas-ct: the intensity window; None: -120 to 240.
        modalities: brats2019: FLAIR alone, or FLAIR, T1, T1ce and T2.
        target: brats2019: the whole tumor, or its three parts as classes.
        progress: called with (done, total, case name).
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    if raw.resolve() == out.resolve():
        do = "choose another output folder"
        raise UserError("The import would overwrite its source", raw, "another folder", do, raw)
    options = RecipeOptions(crop=crop, split=split, hu=hu, modalities=modalities, target=target)
    recipe = import_module(f"{__name__}.{RECIPES[name]}").recipe(options)
    found = find_published(recipe, raw, options)
    settings = {"recipe": name, "raw": str(raw.resolve()), **plain(options)}
    return convert(found, out, settings=settings, name=name, progress=progress)
