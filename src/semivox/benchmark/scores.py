"""Many runs in few tables: one row a run, one row a setting and metric, and comparisons on the same cases."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from semivox.evaluation.metrics import FAILURES, LCC
from semivox.evaluation.statistics import bootstrap_means, holm, paired_difference, wilcoxon_p
from semivox.evaluation.summary import class_rows

SETTING = ["preset", "labeled", "method", "network"]  # what a row of the tables is about, but for the seed
_PLAIN = (
    "dice", "jaccard", "hd95_mm", "asd_mm", "hd95_vox", "asd_vox", "nsd",
    "hd95_mm_penalised", "asd_mm_penalised",
)  # fmt: skip
METRICS = tuple(name + suffix for name in _PLAIN for suffix in ("", LCC))


def case_table(scores: pd.DataFrame, **run: Any) -> pd.DataFrame:
    """Make one row a case: failures, the mean of each metric over its classes, and what `run` says of all.

    Args:
        scores: one row a case and class, as `evaluate_folder` returns it.
        run: `SETTING`, with the network that is scored alone, or "" for the method's own prediction; the
            seed; times and so on, which become columns of the table of runs.
    """
    rows = class_rows(scores)
    found = rows.groupby("case")[[name for name in METRICS if name in rows]].mean()
    found.insert(0, "failures", rows["status"].isin(FAILURES).groupby(rows["case"]).sum())
    return found.reset_index().assign(**run)


def run_table(cases: pd.DataFrame) -> pd.DataFrame:
    """Make one row a run: setting, seed, cases, failures, the mean over cases of every metric, the rest."""
    keys, metrics = [*SETTING, "seed"], _metrics(cases)
    others = cases.columns.difference([*keys, "case", "failures", *metrics], sort=False)
    rows = []
    for key, block in cases.groupby(keys, sort=False):
        counts = {"cases": len(block), "failures": block["failures"].sum()}
        (facts,) = block[others].head(1).to_dict("records")
        rows.append({**dict(zip(keys, key, strict=True)), **counts, **block[metrics].mean(), **facts})
    return pd.DataFrame(rows)


def setting_table(cases: pd.DataFrame) -> pd.DataFrame:
    """Make one row a setting and metric: mean, 95 % interval over cases, standard deviation over seeds.

    A case's value is the mean over its classes, then over the seeds; `sd_seeds` is that of the seeds' means
    (NaN for one seed), `n` counts cases with a value, `failures` adds up those of the seeds.
    """
    rows, metrics = [], _metrics(cases)
    for key, block in cases.groupby(SETTING, sort=False):
        setting, by_seed = dict(zip(SETTING, key, strict=True)), block.groupby("seed")[metrics].mean()
        counts = {"seeds": len(by_seed), "failures": block["failures"].sum()}
        for metric, interval in bootstrap_means(block.groupby("case")[metrics].mean()).items():
            spread = by_seed[metric].std(ddof=1)
            rows.append({**setting, "metric": metric, **interval._asdict(), "sd_seeds": spread, **counts})
    return pd.DataFrame(rows)


class Pair(NamedTuple):
    """Two methods to compare."""

    preset: str
    labeled: int
    method: str
    reference: str
    metric: str = "dice"


def comparison_table(cases: pd.DataFrame, reference: str, declared: Pair | None = None) -> pd.DataFrame:
    """Compute paired differences on the same cases, each with its 95 % interval and Wilcoxon's p.

    The declared comparison comes first and keeps its p. All others, every method against `reference` with
    the same preset and labels (no network alone), share a Holm correction: `p_holm`. `seed_low` and
    `seed_high` are the smallest and largest difference of the means of runs with the same seed: what the
    interval over cases cannot say.

    A declared comparison whose runs are not all there is left out. The others are of the Dice.
    """
    own = cases[cases["network"] == ""]
    grouped: Any = own.groupby(["preset", "labeled", "method"], sort=False)
    runs: dict[tuple[str, int, str], pd.DataFrame] = dict(list(grouped))
    others = [Pair(preset, n, method, reference) for preset, n, method in runs if method != reference]
    rows = []
    for pair in dict.fromkeys([declared, *others] if declared else others):
        names = [(pair.preset, pair.labeled, name) for name in (pair.method, pair.reference)]
        if runs.keys() >= {*names}:
            both = [runs[name] for name in names]
            a, b = (block.groupby("case")[pair.metric].mean() for block in both)
            first, second = (block.groupby("seed")[pair.metric].mean() for block in both)
            by_seed = (first - second).dropna()
            found = {**pair._asdict(), **paired_difference(a, b)._asdict()}
            found |= {"seed_low": by_seed.min(), "seed_high": by_seed.max(), "p": wilcoxon_p(a, b)}
            rows.append({**found, "declared": pair == declared})
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = float("nan")
        others_p = ~table["declared"]
        table.loc[others_p, "p_holm"] = holm(table.loc[others_p, "p"].tolist())
    return table


def _metrics(cases: pd.DataFrame) -> list[str]:
    return [str(name) for name in cases if name in METRICS]
