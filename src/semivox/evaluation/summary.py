"""The table of scores: reading it, means over cases, and `summary.json` in nnU-Net's shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from semivox.errors import UserError
from semivox.evaluation.metrics import COUNTS, FAILURES
from semivox.evaluation.statistics import Interval, bootstrap_means

MEAN_ROW = "mean"  # the row of `summarise` over all foreground classes
_TEXT = ("case", "class", "status", "profile")
_NOT_METRICS = (*_TEXT, "value", "zeroed", *COUNTS)
_NNUNET = {"Dice": "dice", "IoU": "jaccard", "TP": "tp", "FP": "fp", "FN": "fn", "TN": "tn"}


def read_metrics(path: Path) -> pd.DataFrame:
    """Read a `metrics.csv` as `evaluate_folder` returned it.

    Raises:
        UserError: no such file, or not such a file.
    """
    expected, types = "a metrics.csv of `semivox evaluate`", dict.fromkeys(_TEXT, str)
    try:
        table = pd.read_csv(
            path, dtype=types, keep_default_na=False, na_values=[""], float_precision="round_trip"
        )
    except (OSError, ValueError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise UserError("The scores cannot be read", found, expected, path=path) from error
    if lacking := [name for name in (*_TEXT, "dice") if name not in table.columns]:
        found = f"no column {', '.join(lacking)}"
        raise UserError("The file is not a table of scores", found, expected, path=path)
    return table


def metric_names(table: pd.DataFrame) -> list[str]:
    """List the columns of a table of cases that are scores or volumes."""
    return [name for name in table.columns if name not in _NOT_METRICS]


def class_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of classes, without those of regions, whose `value` is like "(1, 2)"."""
    if "value" not in table:
        return table
    return table[~table["value"].astype(str).str.startswith("(")]


def case_means(table: pd.DataFrame, metric: str = "dice") -> pd.Series[Any]:
    """Average a metric of each case over its classes, not over regions; the cases are sorted."""
    return class_rows(table).groupby("case")[metric].mean()


def summarise(table: pd.DataFrame, n: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Compute mean, interval, number of values and of failures, for each class and metric.

    The last rows, of class `mean`, average each case over its foreground classes, not over regions, first,
    then over the cases.

    Args:
        table: one row a case and class, as `evaluate_folder` returns it.
        n, seed: as for `bootstrap_mean`.

    Returns:
        Columns class, metric, mean, low, high, n, failures; `failures` counts rows missed, false alarms
        and without prediction: 0 in overlaps, left out of distances, the image diagonal in `*_penalised`.
    """
    metrics, classes = metric_names(table), class_rows(table)
    blocks = [(str(name), rows[metrics], rows) for name, rows in table.groupby("class", sort=False)]
    blocks.append((MEAN_ROW, classes.groupby("case", sort=False)[metrics].mean(), classes))
    rows = []
    for name, values, counted in blocks:
        failures = int(counted["status"].isin(FAILURES).sum())
        for metric, interval in bootstrap_means(values, n=n, seed=seed).items():
            rows.append({"class": name, "metric": metric, **interval._asdict(), "failures": failures})
    return pd.DataFrame(rows, columns=["class", "metric", *Interval._fields, "failures"])


def nnunet_summary(
    table: pd.DataFrame, files: Mapping[str, tuple[Path | None, Path]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return nnU-Net's three entries, our scores beside its own, and `semivox`: intervals, n, failures.

    The foreground mean averages each case over its classes, without regions, first, then over the cases.

    `files` are prediction and reference of each case, `facts` further entries of `semivox`.
    """
    scores = table[list(_NNUNET.values())].set_axis(list(_NNUNET), axis="columns")
    scores["n_pred"], scores["n_ref"] = scores["TP"] + scores["FP"], scores["TP"] + scores["FN"]
    scores = pd.concat([scores, table[metric_names(table)]], axis="columns").astype(float)
    values, rows_of = table["value"].astype(str), table.groupby("case", sort=False).groups
    foreground = scores.loc[class_rows(table).index].groupby(table["case"], sort=False).mean()
    by_class: dict[str, dict[str, Any]] = {}
    for row in summarise(table).to_dict("records"):
        by_class.setdefault(row.pop("class"), {})[row.pop("metric")] = row
    per_case = [
        {
            "metrics": {values[row]: scores.loc[row].to_dict() for row in rows_of[case]},
            "prediction_file": None if prediction is None else str(prediction),
            "reference_file": str(reference),
        }
        for case, (prediction, reference) in files.items()
        if case in rows_of
    ]
    return {
        "foreground_mean": foreground.mean().to_dict(),
        "mean": {value: rows.mean().to_dict() for value, rows in scores.groupby(values, sort=False)},
        "metric_per_case": per_case,
        "semivox": {
            "confidence": 0.95,
            "cases": table["case"].nunique(),
            "statuses": {str(name): int(count) for name, count in table["status"].value_counts().items()},
            **facts,
            "summary": by_class,
        },
    }
