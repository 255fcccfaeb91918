"""The tables of a benchmark: scores, costs, comparisons, published figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from semivox.reporting.table import Table, duration, interval_text, mean_digits, metric_label, table_of

_METRICS = ("dice", "jaccard", "hd95_mm", "asd_mm")
_PUBLISHED = {"Dice": "dice", "Jaccard": "jaccard", "95HD": "hd95_vox", "ASD": "asd_vox"}
PAPER_METRICS = {
    "dice": "Dice (%)", "jaccard": "Jaccard (%)", "hd95_vox": "95HD (voxels)", "asd_vox": "ASD (voxels)",
}  # fmt: skip
_RESULTS = {"": "all voxels", "_lcc": "largest component"}
SIZES = {  # headings, and columns of `benchmark.scores.run_table`
    "parameters, predicting": "parameters_predicting", "parameters, a step": "parameters",
    "MACs a patch, predicting": "macs", "MACs a patch, a step": "macs_step",
    "MACs as the paper counts, a step": "macs_printed",
}  # fmt: skip
EXPLANATION = (
    "Each cell: mean [95 % bootstrap interval over cases] ± standard deviation over seeds. A case's value is"
    " the mean over its classes, then over seeds. Failed: structures missed, invented or absent, over seeds."
)


def score_rows(settings: pd.DataFrame) -> Table:
    """Return the scores: two lines a setting, all voxels and largest component.

    Where a prediction is the mean of several networks, each of them alone follows. `settings` are those of
    one preset, from `benchmark.scores.setting_table`.
    """
    cases, rows = int(settings["n"].max()), []
    for (labeled, method, network), block in settings.groupby(["labeled", "method", "network"], sort=False):
        values = {str(row["metric"]): row for row in block.to_dict("records")}
        name = f"{method}, {network} alone" if network else str(method)
        start = {"labels": str(labeled), "method": name, "seeds": str(block["seeds"].iloc[0])}
        failed = str(block["failures"].iloc[0])
        for suffix, result in _RESULTS.items():
            if "dice" + suffix in values:
                scores = {metric_label(metric): _score(values, metric, suffix, cases) for metric in _METRICS}
                rows.append({**start, "result": result, **scores, "failed": failed})
            start, failed = dict.fromkeys(start, ""), ""
    return table_of(rows)


def cost_rows(runs: pd.DataFrame) -> Table:
    """Return size and time of each method: means over its runs.

    Sizes are of what predicts and of all networks of a training step; the published tables print the latter,
    with more counted than convolutions (`semivox.methods.cost`).
    """
    rows = []
    for method, block in runs.groupby("method", sort=False):
        mean = block.mean(numeric_only=True).to_dict()
        cells = {"method": str(method), **_sizes(mean), "iterations": f"{mean['iterations']:.0f}"}
        cells["training, a run"] = duration(mean["seconds_training"])
        cells["prediction, a run"] = duration(mean["seconds_predicting"])
        rows.append(cells)
    return table_of(rows)


def comparison_rows(comparisons: pd.DataFrame, *, declared: bool) -> Table:
    """Return the paired differences: the declared one, or all others."""
    heading, column = ("p (Wilcoxon)", "p") if declared else ("p, Holm", "p_holm")
    rows = []
    for row in comparisons[comparisons["declared"] == declared].to_dict("records"):
        cells = {"preset": row["preset"], "labels": str(row["labeled"])}
        cells["comparison"] = f"{row['method']} - {row['reference']}"
        cells["metric"] = metric_label(row["metric"])
        cells["difference [95 % interval]"] = interval_text(row, sign="+")
        cells["by seed"] = _known(row["seed_low"], "+.3f", f" to {row['seed_high']:+.3f}") or "none"
        cells["n"] = str(row["n"])
        cells[heading] = "< 0.001" if row[column] < 0.001 else _known(row[column], ".3f") or "none"
        rows.append(cells)
    return table_of(rows)


def published_rows(published: pd.DataFrame, settings: pd.DataFrame) -> Table:
    """Return published figures, as printed, with ours of the same method and labels.

    Ours, from `benchmark.scores.setting_table`, are of all voxels, in percent and voxels here.
    """
    columns = [name.removesuffix("_mean") for name in published.columns if name.endswith("_mean")]
    titles = published.columns[: published.columns.get_loc(f"{columns[0]}_mean")].drop(
        "name", errors="ignore"
    )
    rows = []
    for row in published.to_dict("records"):
        cells = {name.replace("_", " "): str(row[name]) for name in titles}
        for name, column in zip(_PUBLISHED, columns, strict=True):
            cells[f"{name}, published"] = f"{row[f'{column}_mean']:.2f} ± {row[f'{column}_spread']:.2f}"
        for name, metric in _PUBLISHED.items() if "name" in row else ():
            same = (settings["method"] == row["name"]) & (settings["labeled"] == row["labeled"])
            scale = 100 if metric in ("dice", "jaccard") else 1
            means = scale * settings[same & (settings["metric"] == metric)]["mean"]
            cells[f"{name}, here"] = "; ".join(map("{:.2f}".format, means))
        rows.append(cells)
    return table_of(rows)


def paper_score_rows(lines: pd.DataFrame, metrics: Sequence[str] = tuple(PAPER_METRICS)) -> Table:
    """Return each metric as published and as measured here.

    `lines` are those of one data set, from `benchmark.paper.beside`.
    """
    rows = []
    for line in lines.to_dict("records"):
        network = line.get("network")
        alone = f", {network} alone" if isinstance(network, str) and network else ""
        cells = {"labels": _known(line["share"], ".0%"), "here": _known(line.get("labels"))}
        cells["method"] = f"{line['row']}{alone}"
        for metric in metrics:
            name, spread = PAPER_METRICS[metric], f" ± {line.get(f'{metric}_spread', math.nan):.2f}"
            cells[f"{name}, paper"] = _known(line.get(f"{metric}_published"), ".2f", spread)
            cells[f"{name}, here"] = _measured(line, metric)
        rows.append({**cells, "seeds": _known(line.get("seeds")), "failed": _known(line.get("failures"))})
    return table_of(rows)


def paper_size_rows(lines: pd.DataFrame) -> Table:
    """Return sizes and costs, each row of the grid once; as `paper_score_rows`."""
    has_printed = lines.reindex(columns=["params_M", "macs_G"]).notna().any(axis=None)
    rows = []
    for row, block in lines.groupby("row", sort=False):
        if "macs" in block and block["macs"].notna().any():
            first = block.bfill().iloc[0].to_dict()
            printed = [_known(first.get("params_M"), ".2f", " M"), _known(first.get("macs_G"), ".2f", " G")]
            rows.append([str(row), *(printed if has_printed else []), *_sizes(first).values()])
    return Table(["method", *(["parameters, paper", "MACs, paper"] if has_printed else []), *SIZES], rows)


def _sizes(values: Mapping[Any, Any]) -> dict[str, str]:
    cells = {}
    for heading, name in SIZES.items():
        scale, unit = (1e6, "M") if name.startswith("parameters") else (1e9, "G")
        cells[heading] = _known(values.get(name, math.nan) / scale, ".2f", f" {unit}") or "unknown"
    return cells


def _score(values: Mapping[str, dict[Any, Any]], metric: str, suffix: str, cases: int) -> str:
    row, penalised = (values.get(f"{metric}{kind}{suffix}") for kind in ("", "_penalised"))
    star = ""
    if penalised is not None and penalised["failures"]:
        row, star = penalised, "*"
    if row is None or math.isnan(row["mean"]):
        return "none"
    spread = "" if math.isnan(row["sd_seeds"]) else f" ± {row['sd_seeds']:.{mean_digits(row['mean'])}f}"
    fewer = f" (n = {row['n']})" if row["n"] != cases else ""
    return interval_text(row, star=star) + spread + fewer


def _measured(line: Mapping[Any, Any], metric: str) -> str:
    mean, low, high, n = (line.get(f"{metric}_{part}", math.nan) for part in ("mean", "low", "high", "n"))
    if math.isnan(mean):
        return "none" if line.get("seeds", 0) > 0 else ""
    interval = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{mean:.2f}{interval}" + ("" if n == line["dice_n"] else f" (n = {n:.0f})")


def _known(value: Any, form: str = ".0f", unit: str = "") -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}{unit}"
