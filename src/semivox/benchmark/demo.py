"""`demo`: the whole way on embedded phantoms, and what the unlabeled scans are worth there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivox.benchmark.cells import Cell, scored_cases
from semivox.benchmark.grid import Place, Variant
from semivox.benchmark.pictures import dice_by_case, read_scene
from semivox.benchmark.tables import Tables, make_tables
from semivox.config import Config, overridden
from semivox.datasets.phantom import make_phantoms
from semivox.preprocessing.workspace import prepare_data
from semivox.progress import ProgressFactory, no_progress
from semivox.reporting.cases import slices_figure
from semivox.reporting.planes import draw_case
from semivox.reporting.style import save_png
from semivox.run import Run

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("labels_only", "self_training")
SETTINGS: dict[str, Any] = {
    "method": {"name": "self_training", "options": {"labels_iterations": 0}},
    "net": {"width": 16},
    "split": {"labeled": 4},
    "plan": {"spacing_mm": (2.4, 2.4, 2.4), "stem": (1, 1, 1)},
    "train": {"iterations": 1000, "workers": 0},
}
"""Those of the default method, but smaller: minutes on two CPU cores."""


@dataclass(frozen=True)
class Demo:
    """What the demo found: a cell a method, their tables as of `benchmark`, and the picture."""

    cells: list[Cell]
    tables: Tables
    picture: Path


def demo(
    out: Path,
    *,
    config: Config,
    seed: int = 0,
    train: int = 40,
    test: int = 20,
    fresh: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> Demo:
    """Train with 4 labels of 40 phantoms, with and without the unlabeled ones; see `semivox.demo`.

    Both methods have the same network, augmentation, mixing, averaged weights and number of iterations. After
    65 % of them `self_training` takes pseudo-labeled patches beside the labeled ones, which takes it about a
    third longer in all. What is finished is not repeated, unless `fresh`.
    """
    config = overridden(config, {"train": {"seed": seed}})
    with progress("phantoms") as report:
        raw = make_phantoms(out / "phantoms", train=train, test=test, progress=report)
    if fresh:
        for method in METHODS:
            Run(out / "runs" / method / f"seed{seed}").manifest.remove()
    workspace, split, plan = prepare_data(
        raw, config=config, work=out / "workspace", on_case=draw_case, progress=progress
    )
    cells, held_out = dict[str, Cell](), scored_cases(workspace, split, "test")
    for method in METHODS:
        options = config.method.options if method == config.method.name else {}
        chosen = overridden(config, {"method": {"name": method, "options": options}})
        place = Place(None, len(split.labeled), Variant(method=method, label=method), seed)
        run = out / "runs" / method / f"seed{seed}"
        cells[method] = Cell(place, workspace, split, plan, chosen, run, "test", held_out)
        cells[method].execute(bar=bar, progress=progress)
    picture, dice = out / "comparison.png", dice_by_case(cells)
    case = median_case(dice[METHODS[1]] - dice[METHODS[0]])
    scene, classes = read_scene(case, cells, dice), workspace.dataset.class_names
    save_png(slices_figure([scene], classes, f"{case} (median gain)", cuts=3, cell=2.9), picture)
    return Demo(list(cells.values()), make_tables(cells.values(), METHODS[0]), picture)


def median_case(gains: pd.Series[float]) -> str:
    """Return the case with the median gain: neither the best nor the worst."""
    return str(gains.sort_values().index[len(gains) // 2])
