"""Many runs in few tables: one row a run, one row a setting and metric, and comparisons on the same cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from semivox.evaluation.metrics import FAILURES, LCC
from semivox.evaluation.statistics import bootstrap_means, holm, paired_difference, wilcoxon_p
from semivox.evaluation.summary import class_rows

METRICS = ("dice", "jaccard", "hd95_mm", "asd_mm", "hd95_vox", "asd_vox", "nsd")
_PENALISED = ("hd95_mm_penalised", "asd_mm_penalised")


class Setting(NamedTuple):
    """What a row of the tables is about: everything but the seed."""

    preset: str
    labeled: int
    method: str
    network: str = ""  # the one that is scored alone; empty for the method's own prediction


@dataclass(frozen=True)
class Scored:
    """The scores of one run."""

    setting: Setting
    seed: int
    table: pd.DataFrame  # one row a case and class, as `evaluate_folder` returns it
    facts: dict[str, Any] = field(default_factory=dict)  # times and so on: columns of the table of runs

    def by_case(self) -> pd.DataFrame:
        """One row a case: the mean over its classes of every metric, raw and `*_lcc`."""
        wanted = [name + suffix for name in (*METRICS, *_PENALISED) for suffix in ("", LCC)]
        rows = class_rows(self.table)
        return rows.groupby("case")[[name for name in wanted if name in rows]].mean()

    @property
    def failures(self) -> int:
        """Cases and classes that were missed, invented or without prediction."""
        return int(class_rows(self.table)["status"].isin(FAILURES).sum())


def run_table(runs: Sequence[Scored]) -> pd.DataFrame:
    """Make one row a run: setting, seed, cases, failures, the mean over cases of every metric, its facts."""
    rows: list[dict[Any, Any]] = []
    for run in runs:
        counts = {"seed": run.seed, "cases": run.table["case"].nunique(), "failures": run.failures}
        means: dict[Any, Any] = run.by_case().mean().to_dict()
        rows.append({**run.setting._asdict(), **counts, **means, **run.facts})
    return pd.DataFrame(rows)


def setting_table(runs: Sequence[Scored]) -> pd.DataFrame:
    """Make one row a setting and metric: mean, 95 % interval over cases, standard deviation over seeds.

    A case's value is the mean over its classes, then over the seeds; `sd_seeds` is that of the seeds' means
    (NaN for one seed), `n` counts cases with a value, `failures` adds up those of the seeds.
    """
    rows = []
    for setting, group in _grouped(runs):
        spread = pd.DataFrame([run.by_case().mean() for run in group]).std(ddof=1)
        counts = {"seeds": len(group), "failures": sum(run.failures for run in group)}
        for metric, interval in bootstrap_means(_case_values(group)).items():
            start = {**setting._asdict(), "metric": metric, **interval._asdict()}
            rows.append({**start, "sd_seeds": spread[metric], **counts})
    return pd.DataFrame(rows)


class Declared(NamedTuple):
    """The one comparison that was declared before the runs."""

    preset: str
    labeled: int
    method: str
    reference: str
    metric: str


def comparison_table(
    runs: Sequence[Scored], reference: str, declared: Declared | None = None
) -> pd.DataFrame:
    """Compute paired differences on the same cases, each with its 95 % interval and Wilcoxon's p.

    The declared comparison comes first and keeps its p. All others, every method against `reference` with
    the same preset and labels (no network alone), share a Holm correction: `p_holm`. `seed_low` and
    `seed_high` are the smallest and largest difference of the means of runs with the same seed: what the
    interval over cases cannot say.

    A declared comparison whose runs are not all there is left out. The others are of the Dice.
    """
    groups = {setting: group for setting, group in _grouped(runs) if not setting.network}
    values = {setting: _case_values(group) for setting, group in groups.items()}
    wanted = [] if declared is None else [declared]
    for setting in values:
        other = Declared(setting.preset, setting.labeled, setting.method, reference, "dice")
        if setting.method != reference and other != declared:
            wanted.append(other)
    rows = []
    for one in wanted:
        first = Setting(one.preset, one.labeled, one.method)
        second = first._replace(method=one.reference)
        if first in values and second in values:
            a, b = values[first][one.metric], values[second][one.metric]
            low, high = _seed_range(groups[first], groups[second], one.metric)
            found = {**one._asdict(), **paired_difference(a, b)._asdict(), "seed_low": low, "seed_high": high}
            rows.append({**found, "p": wilcoxon_p(a, b), "declared": one == declared})
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = float("nan")
        others = ~table["declared"]
        table.loc[others, "p_holm"] = holm(table.loc[others, "p"].tolist())
    return table


def _seed_range(first: Sequence[Scored], second: Sequence[Scored], metric: str) -> tuple[float, float]:
    """Smallest and largest difference of the means of two runs of one seed; NaN without a common seed."""
    means = {run.seed: run.by_case()[metric].mean() for run in second}
    found = [run.by_case()[metric].mean() - means[run.seed] for run in first if run.seed in means]
    return (min(found), max(found)) if found else (float("nan"), float("nan"))


def _case_values(group: Sequence[Scored]) -> pd.DataFrame:
    return pd.concat([run.by_case() for run in group]).groupby(level=0).mean()


def _grouped(runs: Sequence[Scored]) -> Iterator[tuple[Setting, list[Scored]]]:
    for setting in dict.fromkeys(run.setting for run in runs):
        yield setting, [run for run in runs if run.setting == setting]
