"""`demo`: the whole way on embedded phantoms, and what the unlabeled scans are worth there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivox.benchmark.cells import Cell
from semivox.benchmark.compare import compare, comparison
from semivox.benchmark.pictures import dice_by_case, read_scene
from semivox.config import Config, load_config, overridden
from semivox.datasets.phantom import make_phantoms
from semivox.progress import ProgressFactory, no_progress
from semivox.reporting.cases import slices_figure
from semivox.reporting.style import save_png
from semivox.run import Run

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("labels_only", "self_training")
TRAIN, TEST = 40, 20
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
    """What the demo found: cells of the comparison, its summary, and the picture."""

    cells: list[Cell]
    summary: dict[str, Any]
    picture: Path


def demo(
    out: Path | str = "demo",
    *,
    seed: int = 0,
    config: Config | None = None,
    train: int = TRAIN,
    test: int = TEST,
    fresh: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> Demo:
    """Train with 4 labels of 40 phantoms, with and without the unlabeled ones, and compare on 20 others.

    Both methods have the same network, augmentation, mixing, averaged weights and number of iterations. After
    65 % of them `self_training` takes pseudo-labeled patches beside the labeled ones, which takes it about a
    third longer in all.

    Args:
        out: folder for phantoms, workspace, runs and the picture.
        seed: of the training; the phantoms are always the same.
        config: other settings than `SETTINGS`.
        train, test: numbers of phantoms.
        fresh: repeat the training even if an earlier demo finished.
        bar: show the training progress bars.
        progress: shows the progress of everything else.
    """
    out = Path(out)
    config = config or load_config(file=SETTINGS)
    with progress("phantoms") as report:
        raw = make_phantoms(out / "phantoms", train=train, test=test, progress=report)
    if fresh:
        for method in METHODS:
            Run(out / "runs" / method / f"seed{seed}").clear()
    cells = compare(
        raw,
        METHODS,
        config=overridden(config, {"train": {"seed": seed}}),
        out=out / "runs",
        seeds=(seed,),
        work=out / "workspace",
        bar=bar,
        progress=progress,
    )
    picture = out / "comparison.png"
    by_method = {cell.method: cell for cell in cells}
    dice = dice_by_case(by_method)
    case = median_case(dice[METHODS[1]] - dice[METHODS[0]])
    scene, classes = read_scene(case, by_method, dice), cells[0].workspace.dataset.class_names
    save_png(slices_figure([scene], classes, f"{case} (median gain)", cuts=3, cell=2.9), picture)
    return Demo(cells, comparison(cells), picture)


def median_case(gains: pd.Series) -> str:
    """Return the case with the median gain: neither the best nor the worst."""
    return str(gains.sort_values().index[len(gains) // 2])
