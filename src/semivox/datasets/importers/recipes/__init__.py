"""Published data sets from their official downloads, by the published protocol.

A recipe finds the cases of a download, says what is missing and what does not belong, and puts them into the
order of a published split. Without `crop="published"` the scans keep their grid; that crop exists to repeat
published tables, and for the left atrium and the pancreas it was made with the labels of all cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semivox.datasets.dataset import Dataset
from semivox.datasets.importers.bring_in import refuse_same
from semivox.datasets.importers.convert import convert
from semivox.datasets.importers.recipes.published import RecipeOptions, find_published
from semivox.datasets.importers.recipes.sets import RECIPES
from semivox.datasets.importers.source import plain
from semivox.errors import unknown
from semivox.progress import Progress


def run_recipe(
    name: str, raw: Path, out: Path, *, progress: Progress | None = None, **options: Any
) -> Dataset:
    """Convert a download to a data set whose order and test cases are those of a published split.

    Args:
        name: la2018, pancreas-ct or brats2019.
        raw: the folder of the download; what is looked for may lie at any depth.
        out: the new data set; `import.json` in it tells what was found, missing and left out.
        progress: called with (done, total, case name).
        options: see `RecipeOptions`.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    refuse_same(raw, out)
    chosen = RecipeOptions(**options)
    found = find_published(RECIPES[name](chosen), raw, chosen)
    settings = {"recipe": name, "raw": str(raw.resolve()), **plain(chosen)}
    return convert(found, out, settings=settings, name=name, progress=progress)
