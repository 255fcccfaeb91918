"""Train several methods on the same labels, score them on the same cases, show the paired difference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semivox.config import Config, overridden
from semivox.datasets.dataset import Case
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.evaluation.evaluate import evaluate_folder
from semivox.evaluation.references import Classes
from semivox.evaluation.statistics import bootstrap_mean, paired_difference
from semivox.evaluation.summary import class_rows, read_metrics
from semivox.files import read_json, write_json
from semivox.inference.model import load_model
from semivox.inference.predict import best_precision, stored_settings
from semivox.inference.predictor import predict_files
from semivox.manifest import write_manifest
from semivox.preprocessing.ready import prepare
from semivox.preprocessing.workspace import Workspace
from semivox.progress import ProgressFactory, no_progress
from semivox.reporting.curves import save_paired_scores
from semivox.run import environment
from semivox.training.train import train

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["test", "val"]


@dataclass(frozen=True)
class Cell:
    """One trained and scored run of a comparison."""

    method: str
    seed: int
    run: Path
    scores: Path
    seconds_training: float
    seconds_predicting: float
    seconds_scoring: float

    def table(self) -> pd.DataFrame:
        """The scores: one row a case and class."""
        return read_metrics(self.scores / "metrics.csv")


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
    """Train each method with each seed, predict the held-out cases and score them on the scanners' grid.

    Everything but the method (and its `options`) is the same: labels, iterations or time budget, networks.
    Finished parts are not repeated when the call is repeated.

    Args:
        data: a raw folder or a workspace.
        methods: registered names.
        config: settings for all; `config.method.options` go to the method that `config.method` names.
        out: folder for runs, predictions, scores, `comparison.json` and `dice.png`.
        seeds: one run a method and seed.
        options: instead, the options of each method, by name.
        cases: score the test cases, or the validation cases while developing.
        work, bar, progress: as for `train`.
    """
    out = Path(out)
    options = options or {config.method.name: config.method.options}
    workspace, split, _ = prepare(data, config=config, work=work, progress=progress)
    chosen = scored_cases(workspace, split, cases)
    done = []
    for seed in seeds:
        for method in methods:
            settings = overridden(
                config,
                {
                    "method": {"name": method, "options": options.get(method, {})},
                    "train": {"seed": seed},
                },
            )
            run = out / method / f"seed{seed}"
            done.append(run_cell(workspace.folder, settings, run, cases, chosen, bar=bar, progress=progress))
    save_paired_scores(out / "dice.png", scores_by_case(done))
    write_json(out / "comparison.json", {**comparison(done), "environment": environment()})
    write_manifest(out, "compare", methods=list(methods), seeds=list(seeds), cases=cases, n=len(chosen))
    return done


def scored_cases(workspace: Workspace, split: Split, role: Role) -> list[Case]:
    """The test or validation cases that have a reference label.

    Raises:
        UserError: there is none.
    """
    cases = [workspace.dataset.case(name) for name in getattr(split, role)]
    chosen = [case for case in cases if case.label is not None]
    if not chosen:
        raise UserError(
            f"The data set has no {role} cases with reference labels", path=workspace.folder, expected="some"
        )
    return chosen


def run_cell(
    work: Path,
    config: Config,
    run: Path,
    role: Role,
    cases: Sequence[Case],
    *,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> Cell:
    """Train, predict and score one run; what is finished is only read.

    Args:
        work: the workspace.
        config: complete settings.
        run: the run folder; predictions and scores go to `run/role`.
        role: test or val.
        cases: those of that role.
        bar, progress: as for `train`.
    """
    train(work, config=config, out=run, bar=bar, progress=progress)
    if read_cell(run, role, config) is None:
        workers = 2 if config.train.workers else 0  # no process at all where none is wanted
        _score(config.method.name, run, role, cases, workers, progress)
    cell = read_cell(run, role, config)
    assert cell is not None, run
    return cell


def comparison(cells: Sequence[Cell], metric: str = "dice") -> dict[str, Any]:
    """Means with 95 % intervals over cases, and paired differences to the first method.

    A case's value is the mean over its classes, then over seeds.
    """
    values = scores_by_case(cells, metric)
    first = next(iter(values))
    return {
        "metric": metric,
        "methods": {
            name: {
                "interval": bootstrap_mean(list(cases.values()))._asdict(),
                "seconds_training": sum(c.seconds_training for c in cells if c.method == name),
            }
            for name, cases in values.items()
        },
        "difference": {
            name: paired_difference(cases, values[first])._asdict()
            for name, cases in values.items()
            if name != first
        },
        "reference": first,
    }


def scores_by_case(cells: Sequence[Cell], metric: str = "dice") -> dict[str, dict[str, float]]:
    """For each method the score of each case: the mean over classes and seeds."""
    import pandas as pd

    scores = {}
    for method in dict.fromkeys(cell.method for cell in cells):
        table = pd.concat([cell.table() for cell in cells if cell.method == method])
        means = class_rows(table).groupby("case")[metric].mean().dropna()
        scores[method] = {str(case): float(value) for case, value in means.items()}
    return scores


def read_cell(run: Path, role: Role, config: Config) -> Cell | None:
    """A run that is trained and scored; None if it is not yet."""
    folder = run / role
    marker = folder / "timing.json"
    if not (folder / "metrics.csv").exists() or not marker.exists():
        return None
    times = read_json(marker)
    return Cell(
        method=config.method.name,
        seed=config.train.seed,
        run=run,
        scores=folder,
        seconds_training=read_json(run / "run_report.json")["train"]["seconds_training"],
        seconds_predicting=times["seconds_predicting"],
        seconds_scoring=times.get("seconds_scoring", 0.0),
    )


def _score(
    method: str, run: Path, role: Role, cases: Sequence[Case], workers: int, progress: ProgressFactory
) -> None:
    folder = run / role
    model = load_model(run)
    started = time.monotonic()
    with progress(f"predict {method}") as report:
        predict_files(
            model,
            {case.name: case.images for case in cases},
            folder,
            stored_settings(model),
            precision=best_precision(model),
            progress=report,
        )
    predicted = time.monotonic()
    with progress(f"evaluate {method}") as report:
        evaluate_folder(
            folder,
            {case.name: case.label for case in cases if case.label is not None},
            Classes(model.plan.class_names, model.plan.class_values, model.plan.ignore_value),
            folder,
            workers=workers,
            progress=report,
        )
    times = {"predicting": predicted - started, "scoring": time.monotonic() - predicted}
    write_json(folder / "timing.json", {f"seconds_{name}": round(value, 1) for name, value in times.items()})
