"""Train several methods on the same labels, score them on the same cases, show the paired difference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semivox.config import Config
from semivox.data.dataset import Case
from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.inference.model import load_model
from semivox.inference.predictor import predict_files
from semivox.reporting.paired import save_paired_scores
from semivox.run import environment, write_manifest
from semivox.scoring.evaluate import evaluate_folder, read_metrics
from semivox.scoring.statistics import bootstrap_mean, paired_difference
from semivox.verbs.predict import best_precision, stored_settings
from semivox.verbs.prepare import prepare
from semivox.verbs.progress import ProgressFactory, no_progress
from semivox.verbs.train import overridden, train

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """One trained and scored run of a comparison."""

    method: str
    seed: int
    run: Path
    scores: Path
    seconds_training: float
    seconds_predicting: float

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
    cases: Literal["test", "val"] = "test",
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
    chosen = [workspace.dataset.case(name) for name in getattr(split, cases)]
    chosen = [case for case in chosen if case.label is not None]
    if not chosen:
        raise UserError(
            f"The data set has no {cases} cases with reference labels", path=data, expected="some"
        )
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
            train(workspace.folder, config=settings, out=run, bar=bar, progress=progress)
            done.append(_score(method, seed, run, cases, chosen, progress))
    save_paired_scores(out / "dice.png", scores_by_case(done))
    write_json(out / "comparison.json", {**comparison(done), "environment": environment()})
    write_manifest(out, "compare", methods=list(methods), seeds=list(seeds), cases=cases, n=len(chosen))
    return done


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
    import pandas as pd  # noqa: PLC0415

    scores = {}
    for method in dict.fromkeys(cell.method for cell in cells):
        table = pd.concat([cell.table() for cell in cells if cell.method == method])
        means = table.groupby("case")[metric].mean().dropna()
        scores[method] = {str(case): float(value) for case, value in means.items()}
    return scores


def _score(
    method: str,
    seed: int,
    run: Path,
    role: str,
    cases: Sequence[Case],
    progress: ProgressFactory,
) -> Cell:
    folder = run / role
    marker = folder / "timing.json"
    if not (folder / "metrics.csv").exists() or not marker.exists():
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
        predicting = time.monotonic() - started
        with progress(f"evaluate {method}") as report:
            evaluate_folder(
                folder,
                {case.name: case.label for case in cases if case.label is not None},
                model.plan.class_names,
                model.plan.class_values,
                folder,
                progress=report,
            )
        write_json(marker, {"seconds_predicting": round(predicting, 1)})
    return Cell(
        method=method,
        seed=seed,
        run=run,
        scores=folder,
        seconds_training=read_json(run / "run_report.json")["train"]["seconds_training"],
        seconds_predicting=read_json(marker)["seconds_predicting"],
    )
