"""Published figures and ours, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from semivox.benchmark.grid import PUBLISHED_LISTS, Variant, cells_of
from semivox.benchmark.jobs import Job, sizes
from semivox.benchmark.paper.items import Entry, Item
from semivox.benchmark.published import published
from semivox.benchmark.run import Outcome

METRICS = {
    "dice": "dice_percent", "jaccard": "jaccard_percent", "hd95_vox": "hd95_voxel", "asd_vox": "asd_voxel",
}  # fmt: skip
SHARES = (0.10, 0.15, 0.20, 0.25, 1.0)  # of labels, in the paper's tables
_ROW = ("method", "row_as_printed", "cr_distance", "contrast", "alpha_percentile")  # what names a row


def beside(item: Item, entry: Entry, outcome: Outcome) -> pd.DataFrame:
    """Return one line a row and number of labels, then those of its networks alone; published ones come last.

    Returns:
        Columns dataset, family, row, network, is_reference, share (of labels; NaN if it is none of the
        paper's), labels (here), seeds, failures; for each metric in percent or voxels `*_published`,
        `*_spread`, `*_mean`, `*_low`, `*_high`, `*_n`; params_M and macs_G as printed; the columns of
        `benchmark.jobs.sizes`. NaN for what is not known.
    """
    printed = {} if item.table is None else _published(entry.family, item.table)
    ours = _ours(outcome)
    jobs = {(job.place.labels, job.place.variant.label): job for job in outcome.jobs}
    lines, used = [], set()
    for variant, labels in _rows(entry):
        job = jobs[labels, variant.label]
        key = variant.published or variant.label, share_of(labels, entry.grid.presets[0], entry.family)
        used.add(key)
        start = {
            "dataset": entry.name, "family": entry.family, "row": variant.label, "share": key[1],
            "labels": len(job.split.labeled), "is_reference": variant.label in entry.references,
        }  # fmt: skip
        scores = ours.get((len(job.split.labeled), variant.label), {})
        size = {**sizes(job.cost), **({"parameters": job.cost.step.parameters} if job.cost else {})}
        lines.append({**start, "network": "", **printed.get(key, {}), **scores.pop("", {}), **size})
        lines += [{**start, "network": network, **values} for network, values in scores.items()]
    for (row, share), values in printed.items():
        if (row, share) not in used and share in item.shares:
            known = {"dataset": entry.name, "family": entry.family, "row": row, "share": share}
            lines.append({**known, **values})
    return pd.DataFrame(lines)


def share_of(labels: Any, preset: str | None, family: str) -> float:
    """Return the published share that a number of labels stands for; NaN if it is none of the paper's.

    A number counts where the preset is one of the published data set.
    """
    if labels == "all":
        return 1.0
    if isinstance(labels, float):
        return labels
    total = PUBLISHED_LISTS[family] if str(preset).split("-")[0] == family else 0
    return next((share for share in SHARES if labels == int(share * total + 0.5)), float("nan"))


def _rows(entry: Entry) -> Iterator[tuple[Variant, Any]]:
    """Return rows and labels in the order of a printed table: by labels, then by row."""
    seen = dict.fromkeys((place.labels, place.variant.label) for place in cells_of(entry.grid))
    order = list(dict.fromkeys(labels for labels, _ in seen))
    for labels in order:
        yield from ((row, labels) for row in entry.grid.methods if (labels, row.label) in seen)


def _published(family: str, table: str) -> dict[tuple[str, float], dict[str, Any]]:
    """Return the printed values by row and share of labels."""
    found = {}
    for line in published(family, table).to_dict("records"):
        row = str(next(line[name] for name in _ROW if name in line))
        values = {"params_M": line.get("params_M"), "macs_G": line.get("macs_G")}
        for metric, name in METRICS.items():
            values[f"{metric}_published"] = line[f"{name}_mean"]
            values[f"{metric}_spread"] = line[f"{name}_spread"]
        found[row, _printed_share(line, family)] = values
    return found


def _printed_share(line: Mapping[Any, Any], family: str) -> float:
    if "labeled" in line:
        total = PUBLISHED_LISTS[family]
        return next(share for share in SHARES if int(share * total + 0.5) == line["labeled"])
    return float(str(line.get("labeled_unlabeled", "10%")).split("%")[0]) / 100


def _ours(outcome: Outcome) -> dict[tuple[int, str], dict[str, dict[str, float]]]:
    """Return our values by number of labels, row and network ("" for the method's prediction)."""
    found: dict[tuple[int, str], dict[str, dict[str, float]]] = {}
    if outcome.tables is None:
        return found
    for line in outcome.tables.settings.to_dict("records"):
        values = found.setdefault((line["labeled"], line["method"]), {}).setdefault(line["network"], {})
        values |= {"seeds": line["seeds"], "failures": line["failures"]}
        if (metric := line["metric"]) in METRICS:
            scale = 100 if metric in ("dice", "jaccard") else 1
            values |= {f"{metric}_{part}": line[part] * scale for part in ("mean", "low", "high")}
            values[f"{metric}_n"] = line["n"]
    return found


def first_jobs(outcome: Outcome) -> dict[str, Job]:
    """Return for each row its finished run with the first seed and the fewest labels."""
    jobs: dict[str, Job] = {}
    for job in sorted(outcome.jobs, key=lambda job: (len(job.split.labeled), job.place.seed)):
        if job.is_finished:
            jobs.setdefault(job.place.variant.label, job)
    return jobs
