"""The rows of a benchmark's tables: scores, costs, comparisons, published figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from semivox.reporting.table import Rows, duration, interval_text, mean_digits, metric_label

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


def score_rows(settings: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return headings and cells of the scores: two lines a setting, all voxels and largest component.

    Where a prediction is the mean of several networks, each of them alone follows. `settings` are those of
    one preset, from `benchmark.scores.setting_table`.
    """
    cases = settings["n"].max()
    headings = ["labels", "method", "seeds", "result", *map(metric_label, _METRICS), "failed"]
    rows = []
    for (labeled, method, network), block in settings.groupby(["labeled", "method", "network"], sort=False):
        values = {str(row["metric"]): row for row in block.to_dict("records")}
        first = next(iter(values.values()))
        for suffix, result in _RESULTS.items():
            if "dice" + suffix not in values:
                continue
            cells = [_score(values, metric, suffix, int(cases)) for metric in _METRICS]
            name = f"{method}, {network} alone" if network else str(method)
            start = [str(labeled), name, str(first["seeds"])] if not suffix else ["", "", ""]
            rows.append([*start, result, *cells, "" if suffix else str(first["failures"])])
    return headings, rows


def cost_rows(runs: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return headings and cells of size and time of each method: means over its runs.

    Sizes are of what predicts and of all networks of a training step; the published tables print the latter,
    with more counted than convolutions (`semivox.methods.cost`).
    """
    headings = ["method", *SIZES, "iterations", "training, a run", "prediction, a run"]
    rows = []
    for method, block in runs.groupby("method", sort=False):
        mean = block.mean(numeric_only=True)
        times = [duration(mean[f"seconds_{name}"]) for name in ("training", "predicting")]
        rows.append([str(method), *_size_cells(mean.to_dict()), f"{mean['iterations']:.0f}", *times])
    return headings, rows


def _size_cells(sizes: Mapping[Any, Any]) -> list[str]:
    cells = []
    for name in SIZES.values():
        scale, unit = (1e6, "M") if name.startswith("parameters") else (1e9, "G")
        cells.append(_known(sizes.get(name, math.nan) / scale, ".2f", f" {unit}") or "unknown")
    return cells


def comparison_rows(comparisons: pd.DataFrame, *, declared: bool) -> tuple[list[str], Rows]:
    """Return headings and cells of the paired differences: the declared one, or all others."""
    headings = ["preset", "labels", "comparison", "metric", "difference [95 % interval]", "by seed", "n"]
    rows = []
    for row in comparisons[comparisons["declared"] == declared].to_dict("records"):
        seeds, p = [row["seed_low"], row["seed_high"]], row["p" if declared else "p_holm"]
        by_seed = "none" if math.isnan(seeds[0]) else "{:+.3f} to {:+.3f}".format(*seeds)
        what = [row["preset"], str(row["labeled"]), f"{row['method']} - {row['reference']}"]
        figures = [metric_label(row["metric"]), interval_text(row, sign="+"), by_seed, str(row["n"])]
        rows.append([*what, *figures, "< 0.001" if p < 0.001 else _known(p, ".3f") or "none"])
    return [*headings, "p (Wilcoxon)" if declared else "p, Holm"], rows


def published_rows(published: pd.DataFrame, settings: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return headings and cells of published figures, as printed, with ours of the same method and labels.

    Ours, from `benchmark.scores.setting_table`, are of all voxels, in percent and voxels here.
    """
    columns = [name for name in published.columns if name.endswith("_mean")]
    titles = [name for name in published.columns[: published.columns.get_loc(columns[0])] if name != "name"]
    headings = [name.replace("_", " ") for name in titles] + [f"{name}, published" for name in _PUBLISHED]
    matched = "name" in published
    headings += [f"{name}, here" for name in _PUBLISHED] if matched else []
    rows = []
    for row in published.to_dict("records"):
        cells = [str(row[name]) for name in titles]
        cells += [f"{row[name]:.2f} ± {row[name.replace('_mean', '_spread')]:.2f}" for name in columns]
        cells += [_ours(settings, row, metric) for metric in _PUBLISHED.values()] if matched else []
        rows.append(cells)
    return headings, rows


def _score(values: Mapping[str, dict[Any, Any]], metric: str, suffix: str, cases: int) -> str:
    row = values.get(metric + suffix)
    penalised = values.get(f"{metric}_penalised{suffix}")
    star = ""
    if penalised is not None and penalised["failures"]:
        row, star = penalised, "*"
    if row is None or math.isnan(row["mean"]):
        return "none"
    spread = "" if math.isnan(row["sd_seeds"]) else f" ± {row['sd_seeds']:.{mean_digits(row['mean'])}f}"
    fewer = f" (n = {row['n']})" if row["n"] != cases else ""
    return interval_text(row, star=star) + spread + fewer


def _ours(settings: pd.DataFrame, row: Mapping[Any, Any], metric: str) -> str:
    same = (settings["method"] == row["name"]) & (settings["labeled"] == row["labeled"])
    scale = 100 if metric in ("dice", "jaccard") else 1
    return "; ".join(
        f"{mean * scale:.2f}" for mean in settings[same & (settings["metric"] == metric)]["mean"]
    )


def paper_score_rows(
    lines: pd.DataFrame, metrics: Sequence[str] = tuple(PAPER_METRICS)
) -> tuple[list[str], Rows]:
    """Return headings and cells: each metric as published and as measured here.

    `lines` are those of one data set, from `benchmark.paper.beside`.
    """
    headings = ["labels", "here", "method"]
    headings += [f"{PAPER_METRICS[metric]}, {where}" for metric in metrics for where in ("paper", "here")]
    rows = []
    for line in lines.to_dict("records"):
        network = line.get("network")
        alone = f", {network} alone" if isinstance(network, str) and network else ""
        cells = [_known(line["share"], ".0%"), _known(line.get("labels")), f"{line['row']}{alone}"]
        for metric in metrics:
            printed = _known(line.get(f"{metric}_published"), ".2f")
            cells += [printed and f"{printed} ± {line[f'{metric}_spread']:.2f}", _measured(line, metric)]
        rows.append([*cells, _known(line.get("seeds")), _known(line.get("failures"))])
    return [*headings, "seeds", "failed"], rows


def paper_size_rows(lines: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return headings and cells of sizes and costs, each row of the grid once; as `paper_score_rows`."""
    rows, has_printed = [], lines.reindex(columns=["params_M", "macs_G"]).notna().any(axis=None)
    headings = ["method", *(["parameters, paper", "MACs, paper"] if has_printed else []), *SIZES]
    for row, block in lines.groupby("row", sort=False):
        if "macs" in block and block["macs"].notna().any():
            first = block.bfill().iloc[0].to_dict()
            printed = [_known(first.get("params_M"), ".2f", " M"), _known(first.get("macs_G"), ".2f", " G")]
            rows.append([str(row), *(printed if has_printed else []), *_size_cells(first)])
    return headings, rows


def _measured(line: Mapping[Any, Any], metric: str) -> str:
    mean, low, high, n = (line.get(f"{metric}_{part}", math.nan) for part in ("mean", "low", "high", "n"))
    if math.isnan(mean):
        return "none" if line.get("seeds", 0) > 0 else ""
    interval = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"{mean:.2f}{interval}" + ("" if n == line["dice_n"] else f" (n = {n:.0f})")


def _known(value: Any, form: str = ".0f", unit: str = "") -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}{unit}"
