"""Cases by methods, read from finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from semivox.benchmark.cells import Cell
from semivox.evaluation.summary import case_means
from semivox.io.volume import IGNORE, read_image, read_label
from semivox.reporting.cases import Scene, slices_figure, surfaces_figure
from semivox.reporting.slices import turned
from semivox.reporting.style import save_figure


def save_cases(path: Path, cells: Mapping[str, Cell], title: str, note: str = "") -> list[str]:
    """Draw slices and surfaces of some cases; return the names of the files.

    The cases have the lowest, the median and the highest mean Dice over the methods, so that no method chose
    them. `path` has no ending; `cells` are a finished run of each method.
    """
    dice = dice_by_case(cells)
    scenes = [read_scene(case, cells, dice) for case in spread_cases(dice, 3)]
    classes = next(iter(cells.values())).workspace.dataset.class_names
    save_figure(slices_figure(scenes, classes, title, note=note), path.with_name(f"{path.name}-slices"))
    save_figure(surfaces_figure(scenes, classes, title, note=note), path.with_name(f"{path.name}-surfaces"))
    return [f"{path.name}-{kind}.png" for kind in ("slices", "surfaces")]


def dice_by_case(cells: Mapping[str, Cell]) -> pd.DataFrame:
    """Return the mean Dice over the classes of each case (rows), a column a cell."""
    return pd.DataFrame({name: case_means(cell.table()) for name, cell in cells.items()})


def spread_cases(scores: pd.DataFrame, count: int) -> list[str]:
    """Return cases from the lowest to the highest mean over methods, evenly in rank: `count`, or all."""
    ordered = scores.mean(axis=1).sort_values(kind="stable").index
    places = np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)
    return [str(ordered[place]) for place in places]


def read_scene(name: str, cells: Mapping[str, Cell], dice: pd.DataFrame) -> Scene:
    """Read a case, its reference and what each cell found in it; `dice` is that of `dice_by_case`."""
    dataset = next(iter(cells.values())).workspace.dataset
    case = dataset.case(name)
    image = read_image(case.images)
    assert case.label is not None
    truth = read_label(case.label, dataset.class_values, image, dataset.ignore_value).array
    truth[truth == IGNORE] = 0
    files = [cell.scores / f"{name}.nii.gz" for cell in cells.values()]
    found = [read_label(file, dataset.class_values).array for file in files]
    scan, truth, *found = turned(image.array[0], image.spacing_mm, image.axes, truth, *found)
    scores = {row: float(value) for row, value in zip(cells, dice.loc[name], strict=True)}
    return Scene(name, scan, truth, dict(zip(cells, found, strict=True)), scores)
