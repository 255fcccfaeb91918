"""The words and tables of a report: what was trained on what, scores, failures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from semivox.errors import shortened
from semivox.evaluation.metrics import FAILURES
from semivox.evaluation.summary import MEAN_ROW, case_means, class_rows
from semivox.reporting.page.source import RunFacts, Scored
from semivox.reporting.table import duration, interval_text, metric_label

_METRICS = ("dice", "hd95_mm", "assd_mm", "nsd", "dice_lcc")
_PUBLISHED = ("dice", "jaccard", "hd95_vox", "asd_vox", "dice_lcc")
_FAILED = {
    "missed": "in the reference, not in the prediction",
    "false_alarm": "in the prediction, not in the reference",
    "missing": "no prediction file",
}
_CROPS = {
    "none": "none, scans as the data set has them",
    "foreground": "box around voxels above the background, found without labels",
}
_SAME, _LONGEST = 0.0005, 400  # Dice; letters of a description
_MOST_CLASSES = 12  # columns of the table of cases, names in a list


class Table(NamedTuple):
    """A table of the page, with the sentence above it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""


def facts(run: RunFacts) -> dict[str, str]:
    """Return what was trained on what, and the fields of the protocol, in words."""
    train, plan, split, trained = run.config.train, run.plan, run.split, run.trained
    options = ", ".join(f"{name}={value}" for name, value in run.config.method.options.items())
    chosen = "the weights after the last iteration" if trained.get("checkpoint") == "last" else "{checkpoint}"
    pairs = {
        "Data set": ": ".join(filter(None, (plan.dataset, run.description[:_LONGEST]))),
        "Labels used": f"{len(split.labeled)} training cases; the label files of the {len(split.unlabeled)}"
        " unlabeled cases were not opened in planning, cropping or training",
        "Split": split.how or "as in splits.json",
        "Selection": f"{train.selection}: {chosen.format(checkpoint=trained.get('checkpoint', ''))}",
        "Crop": _CROPS[plan.crop],
        "Classes": ", ".join(plan.class_names[1:]),
        "Channels": ", ".join(plan.channels),
        "Working grid": f"{_sides(plan.spacing_mm)} mm, normalisation {', '.join(plan.normalisation)}",
        "Patch": f"{_sides(plan.patch)} voxels",
        "Method": f"{run.config.method.name} ({options})" if options else run.config.method.name,
        "Preset": run.config.preset or "none",
        "Iterations": f"{trained.get('iterations', train.iterations)}, seed {train.seed}, {time_text(run)}",
        "Parameters": f"{trained['parameters']:,}" if "parameters" in trained else "unknown",
        "Versions": ", ".join(f"{name} {run.environment.get(name)}" for name in ("semivox", "torch")),
        "Processor": str(run.environment.get("processor", "unknown")),
    }
    return {name: value for name, value in pairs.items() if value}


def time_text(run: RunFacts) -> str:
    """Write how long a run was trained."""
    seconds = run.trained.get("seconds_training")
    return "unknown time" if seconds is None else duration(seconds)


def score_table(summary: pd.DataFrame, scored: Scored) -> tuple[Table, pd.DataFrame]:
    """Lay out means with intervals, a row a class, from `summarise`; also return those of the Dice."""
    rows: dict[Any, Any] = {(row["class"], row["metric"]): row for row in summary.to_dict("records")}
    dice = summary[summary["metric"] == "dice"].set_index("class")
    if len(dice) == 2:
        dice = dice.drop(MEAN_ROW)
    known = set(summary["metric"])
    metrics = [name for name in (_METRICS if "hd95_mm" in known else _PUBLISHED) if name in known]
    if "dice_lcc" in metrics and all(
        abs(rows[name, "dice_lcc"]["mean"] - mean) < _SAME for name, mean in dice["mean"].items()
    ):
        metrics.remove("dice_lcc")  # the largest component is the whole
    body = [
        [str(name), *(interval_text(rows[name, metric]) for metric in metrics), str(n), str(failed)]
        for name, n, failed in zip(dice.index, dice["n"], dice["failures"], strict=True)
    ]
    mean = f"Mean over {scored.cases} with its 95 % interval" if scored.count > 1 else f"Of {scored.cases}"
    distances = "leave failures out" if "hd95_mm" in known else "count failures as 0, as older papers did"
    text = f"{mean}. Distances {distances}; Dice counts them as 0."
    return Table(["class", *map(metric_label, metrics), "n", "failed"], body, text), dice


def by_case(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a case, the worst first: mean Dice over its classes, then the Dice of each class."""
    rows = class_rows(table)
    wide = rows.pivot_table(index="case", columns="class", values="dice", sort=False, dropna=False)
    wide.insert(0, MEAN_ROW, case_means(table))
    return wide.sort_values(MEAN_ROW, kind="stable", na_position="last")


def case_table(table: pd.DataFrame) -> Table:
    """Lay out the Dice and the largest 95HD of every case."""
    wide, classes = by_case(table), list(dict.fromkeys(class_rows(table)["class"]))
    shown = classes[:_MOST_CLASSES] if len(classes) > 1 else []
    distance = "hd95_mm" if "hd95_mm" in table else "hd95_vox"
    worst = table.groupby("case")[distance].max()
    headings = ["case", "Dice", *shown, f"largest {metric_label(distance)}"]
    rows: list[list[str]] = [
        [str(case), *(_number(row[name], 3) for name in (MEAN_ROW, *shown)), _number(worst[str(case)], 2)]
        for case, row in wide.iterrows()
    ]
    return Table(headings, rows)


def failures(table: pd.DataFrame) -> list[str]:
    """Name the failures: case, classes, and what happened."""
    found = []
    for (case, status), rows in table.groupby(["case", "status"], sort=False):
        if status in FAILURES:
            found.append(f"{case}: {_failed(rows['class'], status)} ({_FAILED[status]})")
    return found


def case_text(table: pd.DataFrame, case: str) -> tuple[str, str]:
    """Write the Dice of each class of a case, and name its failures."""
    rows = table[table["case"] == case]
    dice = [f"{row['class']} {_number(row['dice'], 3)}" for row in class_rows(rows).to_dict("records")]
    failed = rows[rows["status"].isin(FAILURES)].groupby("status", sort=False)["class"]
    named = "; ".join(_failed(classes, str(status)) for status, classes in failed)
    return f"Dice: {shortened(dice, _MOST_CLASSES)}", named


def _failed(classes: Iterable[str], status: str) -> str:
    return f"{shortened(classes, _MOST_CLASSES)} {status.replace('_', ' ')}"


def _sides(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:.4g}" for side in sides)


def _number(value: float, digits: int) -> str:
    return "none" if math.isnan(value) else f"{value:.{digits}f}"
