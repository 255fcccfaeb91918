"""Published figures beside ours as the cells of tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from semivox.reporting.benchmark import SIZES, size_cells
from semivox.reporting.table import Rows

NAMES = {"dice": "Dice (%)", "jaccard": "Jaccard (%)", "hd95_vox": "95HD (voxels)", "asd_vox": "ASD (voxels)"}


def score_rows(lines: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return headings and cells: each metric as published and as measured here.

    Args:
        lines: of one data set, from `benchmark.paper.beside`.
    """
    headings = ["labels", "here", "method"]
    headings += [f"{name}, {where}" for name in NAMES.values() for where in ("paper", "here")]
    rows = []
    for line in lines.to_dict("records"):
        alone = f", {line['network']} alone" if _text(line.get("network")) else ""
        share = "" if math.isnan(line["share"]) else f"{line['share']:.0%}"
        cells = [share, _whole(line.get("labels")), f"{line['row']}{alone}"]
        for metric in NAMES:
            cells += [_printed(line, metric), _measured(line, metric)]
        rows.append([*cells, _whole(line.get("seeds")), _whole(line.get("failures"))])
    return [*headings, "seeds", "failed"], rows


def size_rows(lines: pd.DataFrame) -> tuple[list[str], Rows]:
    """Return headings and cells of sizes and costs, each row of the grid once; as `score_rows`."""
    headings = ["method", "parameters, paper", "MACs, paper", *SIZES]
    rows = []
    for row, block in lines.groupby("row", sort=False):
        if "macs" in block and block["macs"].notna().any():
            first = block.bfill().iloc[0].to_dict()
            printed = [_unit(first.get("params_M"), "M"), _unit(first.get("macs_G"), "G")]
            rows.append([str(row), *printed, *size_cells(first)])
    return headings, rows


def _printed(line: Mapping[Any, Any], metric: str) -> str:
    mean = line.get(f"{metric}_published", math.nan)
    return "" if math.isnan(mean) else f"{mean:.2f} ± {line[f'{metric}_spread']:.2f}"


def _measured(line: Mapping[Any, Any], metric: str) -> str:
    mean = line.get(f"{metric}_mean", math.nan)
    if math.isnan(mean):
        return "none" if line.get("seeds", 0) > 0 else ""
    text, low, high = f"{mean:.2f}", line[f"{metric}_low"], line[f"{metric}_high"]
    text += "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    n = line[f"{metric}_n"]
    return text if n == line["dice_n"] else f"{text} (n = {n:.0f})"


def _unit(value: Any, unit: str) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.2f} {unit}"


def _whole(value: Any) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.0f}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
