"""Figures and data sets of arXiv 2509.13084, to stand beside one's own; `published/README.md` has details."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import pandas as pd

TABLES = ("comparison", "modules", "distance", "contrast", "percentile")
SHARES = (0.10, 0.15, 0.20, 0.25, 1.0)  # of labels, in the tables
PROTOCOL = (
    "As printed in arXiv 2509.13084, in percent and voxels. The other methods were trained again by that"
    " paper's authors; last checkpoint; what follows ± is not defined there; the left-atrium crops were made"
    " with the labels of all cases."
)


class Family(NamedTuple):
    """A published data set."""

    title: str
    preset: str  # with the paper's settings
    training: int  # cases, none of them for validation
    test: int
    names: tuple[str, ...]  # with which names of its copies begin, letters and digits alone

    def count(self, share: float) -> int:
        """Return the number of labels that a share of the training cases means."""
        return int(share * self.training + 0.5)


FAMILIES = {
    "la": Family("LA", "la-8", 80, 20, ("la2018", "leftatrium")),
    "pancreas": Family("Pancreas-CT", "pancreas-6", 62, 20, ("pancreas",)),
    "brats": Family("BraTS-2019", "brats-25", 250, 60, ("brats",)),
}


def published(family: str, table: str = "comparison") -> pd.DataFrame:
    """Return one of the paper's tables, as printed: percent and voxels.

    Args:
        family: la, pancreas or brats.
        table: comparison (tables 1-3), modules (4), distance (5), contrast (6) or percentile (7).

    Returns:
        The columns that name a row, then mean and spread of the four metrics, then size and cost if printed.
    """
    with (resources.files("semivox") / "published" / f"{table}.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file)
    return rows[rows["dataset"] == FAMILIES[family].title].drop(columns="dataset").reset_index(drop=True)


def family_of(presets: Sequence[str | None]) -> str | None:
    """Return the published data set that the presets are for: la, pancreas or brats; None without one."""
    families = {str(preset).split("-")[0] for preset in presets}
    return families.pop() if len(families) == 1 and families <= FAMILIES.keys() else None


def family_named(name: str) -> str | None:
    """Return the published data set that a name is of, or None."""
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    return next((family for family, known in FAMILIES.items() if plain.startswith(known.names)), None)


def published_counts(shares: Sequence[Any], presets: Sequence[str | None]) -> list[Any]:
    """Turn fractions of labels into the numbers of the presets' published data set, if they are for one."""
    family = family_of(presets)
    return [FAMILIES[family].count(s) if family and isinstance(s, float) else s for s in shares]
