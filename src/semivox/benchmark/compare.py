"""Train several methods on the same labels, score them on the same cases, show the paired difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from semivox.benchmark.cells import Cell, Role, scored_cases
from semivox.config import Config, overridden
from semivox.evaluation.statistics import bootstrap_mean, paired_difference
from semivox.evaluation.summary import case_means
from semivox.files import write_json
from semivox.manifest import write_manifest
from semivox.preprocessing.workspace import prepare_data
from semivox.progress import ProgressFactory, no_progress
from semivox.reporting.curves import save_paired_scores
from semivox.reporting.drawing import draw_case
from semivox.run import environment


def compare(
    data: Path | str,
    methods: Sequence[str],
    *,
    config: Config,
    out: Path | str,
    seeds: Sequence[int] = (0,),
    options: dict[str, dict[str, Any]] | None = None,
    cases: Role = "test",
    work: Path | None = None,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> list[Cell]:
    """Train each method with each seed, predict the held-out cases and score them on the scanner's grid.

    Everything but the method (and its `options`) is the same: labels, iterations or time budget, networks.
    What is finished is not repeated when the call is repeated. Arguments: see `semivox.api.compare`.
    """
    out = Path(out)
    options = options or {config.method.name: config.method.options}
    workspace, split, plan = prepare_data(
        data, config=config, work=work, on_case=draw_case, progress=progress
    )
    chosen = scored_cases(workspace, split, cases)
    cells = []
    for seed in seeds:
        for method in methods:
            changes: dict[str, dict[str, Any]] = {
                "method": {"name": method, "options": options.get(method, {})},
                "train": {"seed": seed},
            }
            run = out / method / f"seed{seed}"
            cells.append(Cell(workspace, split, plan, overridden(config, changes), run, cases, chosen))
            cells[-1].execute(bar=bar, progress=progress)
    save_paired_scores(out / "dice.png", scores_by_case(cells))
    write_json(out / "comparison.json", {**comparison(cells), "environment": environment()})
    write_manifest(out, "compare", methods=list(methods), seeds=list(seeds), cases=cases, n=len(chosen))
    return cells


def comparison(cells: Sequence[Cell], metric: str = "dice") -> dict[str, Any]:
    """Compute means with 95 % intervals over cases, and paired differences to the first method.

    A case's value is the mean over its classes, then over seeds.
    """
    values = scores_by_case(cells, metric)
    first = next(iter(values))
    methods = {}
    for name, cases in values.items():
        seconds = sum(cell.facts()["seconds_training"] for cell in cells if cell.method == name)
        interval = bootstrap_mean(list(cases.values()))._asdict()
        methods[name] = {"interval": interval, "seconds_training": seconds}
    others = {name: cases for name, cases in values.items() if name != first}
    return {
        "metric": metric,
        "methods": methods,
        "difference": {name: paired_difference(c, values[first])._asdict() for name, c in others.items()},
        "reference": first,
    }


def scores_by_case(cells: Sequence[Cell], metric: str = "dice") -> dict[str, dict[str, float]]:
    """Return for each method the score of each case: the mean over classes and seeds."""
    scores = {}
    for method in dict.fromkeys(cell.method for cell in cells):
        table = pd.concat([cell.table() for cell in cells if cell.method == method])
        means = case_means(table, metric).dropna()
        scores[method] = {str(case): float(value) for case, value in means.items()}
    return scores
