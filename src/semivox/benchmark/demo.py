"""`demo`: the whole way on embedded phantoms, and what the unlabeled scans are worth there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from semivox.benchmark.cells import Cell
from semivox.benchmark.compare import compare, comparison
from semivox.config import Config, load_config, overridden
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.phantom import make_phantoms
from semivox.io.volume import read_image, read_label
from semivox.progress import ProgressFactory, no_progress
from semivox.reporting.comparison import save_comparison
from semivox.run import Run

if TYPE_CHECKING:
    import pandas as pd

METHODS = ("supervised_pair", "dual")
TRAIN, TEST = 40, 20


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

    Both methods have the same networks and iterations and see the same labeled patches; `dual` sees unlabeled
    ones beside them, which about doubles its time.

    Args:
        out: folder for phantoms, workspace, runs and the picture.
        seed: of the training; the phantoms are always the same.
        config: other settings than the `demo` preset.
        train, test: numbers of phantoms.
        fresh: repeat the training even if an earlier demo finished.
        bar: show the training progress bars.
        progress: shows the progress of everything else.
    """
    out = Path(out)
    config = config or load_config(preset="demo")
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
    _draw(cells, open_dataset(raw), picture)
    return Demo(cells, comparison(cells), picture)


def _draw(cells: list[Cell], dataset: Dataset, picture: Path) -> None:
    """Show the case whose gain is the median one, so that the picture is neither the best nor the worst."""
    tables = {cell.method: cell.table().set_index("case")["dice"] for cell in cells}
    before, after = (tables[name] for name in METHODS)
    case = dataset.case(median_case(after - before))
    image = read_image(case.images)
    assert case.label is not None
    reference = read_label(case.label, dataset.class_values, like=image)
    found = {
        cell.method: read_label(cell.scores / f"{case.name}.nii.gz", dataset.class_values).array
        for cell in cells
    }
    save_comparison(
        picture,
        image.array,
        reference.array,
        found,
        image.spacing_mm,
        scores={name: float(np.asarray(tables[name][case.name]).mean()) for name in found},
        title=f"{case.name} (median gain)",
        class_names=dataset.class_names,
        axes="".join(nib.aff2axcodes(image.affine)),
    )


def median_case(gains: pd.Series) -> str:
    """The name of the case with the median gain."""
    ordered = gains.groupby(level=0).mean().sort_values()
    return str(ordered.index[len(ordered) // 2])
