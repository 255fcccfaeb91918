"""Figures of arXiv 2509.13084 as data, to stand beside one's own; `published/README.md` has details."""

from __future__ import annotations

from importlib import resources

import pandas as pd

from semivox.errors import UserError

DATASETS = {"la": "LA", "pancreas": "Pancreas-CT", "brats": "BraTS-2019"}
TABLES = ("comparison", "modules", "distance", "contrast", "percentile")
PROTOCOL = (
    "As printed in arXiv 2509.13084, in percent and voxels. The other methods were trained again by that"
    " paper's authors; last checkpoint; what follows ± is not defined there; the left-atrium crops were made"
    " with the labels of all cases."
)


def published(dataset: str, table: str = "comparison") -> pd.DataFrame:
    """One of the paper's tables, as printed: percent and voxels.

    Args:
        dataset: la, pancreas or brats.
        table: comparison (tables 1-3), modules (4), distance (5), contrast (6) or percentile (7).

    Returns:
        The columns that name a row, then mean and spread of the four metrics, then size and cost if printed.
    """
    if dataset not in DATASETS or table not in TABLES:
        expected = f"one of {', '.join(DATASETS)}; one of {', '.join(TABLES)}"
        raise UserError("No such published figures", f"{dataset}, {table}", expected)
    with (resources.files("semivox") / "published" / f"{table}.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file)
    return rows[rows["dataset"] == DATASETS[dataset]].drop(columns="dataset").reset_index(drop=True)
