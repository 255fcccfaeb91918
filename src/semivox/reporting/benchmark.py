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
SIZES = (
    "parameters, predicting", "parameters, a step", "MACs a patch, predicting", "MACs a patch, a step",
    "MACs as the paper counts, a step",
)  # fmt: skip
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
        sizes = size_cells(mean.to_dict())
        times = [duration(mean["seconds_training"]), duration(mean["seconds_predicting"])]
        rows.append([str(method), *sizes, f"{mean['iterations']:.0f}", *times])
    return headings, rows


def size_cells(sizes: Mapping[Any, Any]) -> list[str]:
    """Return a cell for each of `SIZES`, from a line of `benchmark.scores.run_table`."""
    millions = [sizes.get(name, math.nan) / 1e6 for name in ("parameters_predicting", "parameters")]
    billions = [sizes.get(name, math.nan) / 1e9 for name in ("macs", "macs_step", "macs_printed")]
    values = [(value, "M") for value in millions] + [(value, "G") for value in billions]
    return ["unknown" if math.isnan(value) else f"{value:.2f} {unit}" for value, unit in values]


def comparison_rows(comparisons: pd.DataFrame, *, declared: bool) -> tuple[list[str], Rows]:
    """Return headings and cells of the paired differences: the declared one, or all others."""
    headings = ["preset", "labels", "comparison", "metric", "difference [95 % interval]", "by seed", "n"]
    rows = []
    for row in comparisons[comparisons["declared"] == declared].to_dict("records"):
        pair, gain = f"{row['method']} - {row['reference']}", interval_text(row, sign="+")
        by_seed, p = _seeds(row["seed_low"], row["seed_high"]), _p(row["p" if declared else "p_holm"])
        what = [row["preset"], str(row["labeled"]), pair, metric_label(row["metric"])]
        rows.append([*what, gain, by_seed, str(row["n"]), p])
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


def _seeds(low: float, high: float) -> str:
    return "none" if math.isnan(low) else f"{low:+.3f} to {high:+.3f}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "none"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


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
            rows.append([str(row), *(printed if has_printed else []), *size_cells(first)])
    return headings, rows


def _measured(line: Mapping[Any, Any], metric: str) -> str:
    mean = line.get(f"{metric}_mean", math.nan)
    if math.isnan(mean):
        return "none" if line.get("seeds", 0) > 0 else ""
    text, low, high = f"{mean:.2f}", line[f"{metric}_low"], line[f"{metric}_high"]
    text += "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    n = line[f"{metric}_n"]
    return text if n == line["dice_n"] else f"{text} (n = {n:.0f})"


def _known(value: Any, form: str = ".0f", unit: str = "") -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}{unit}"
