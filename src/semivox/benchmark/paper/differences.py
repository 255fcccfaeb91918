"""What of a table or figure is not as published: it stands above the table, and in the figure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from semivox.benchmark.grid import PUBLISHED_LISTS, cells_of, settings_of
from semivox.benchmark.paper.items import PRESETS, Entry, Item, guess_family
from semivox.benchmark.published import DATASETS
from semivox.benchmark.run import Outcome
from semivox.config import Config

_TESTS = {"la": 20, "pancreas": 20, "brats": 60}  # published test cases
_SECTIONS = ("net", "plan", "train", "predict")
_FREE = {
    "train.workers", "train.device", "train.precision", "train.log_every", "train.checkpoint_every",
    "train.validate_every", "train.diagnose_every", "train.seed", "predict.batch",
}  # fmt: skip


def differences(item: Item, entry: Entry, outcome: Outcome) -> list[str]:
    """Say what is not as published, with the published value in brackets; empty if all is.

    Data and scale come first, then the settings by name.
    """
    job, family, on_test = outcome.jobs[0], entry.family, entry.grid.cases == "test"
    ours, theirs = _settings(entry)
    training = sum(map(len, (job.split.labeled, job.split.unlabeled, job.split.val)))
    facts: list[tuple[str, Any, Any]] = [
        ("iterations", ours.pop("train.iterations"), theirs.pop("train.iterations")),
        ("training cases", training, PUBLISHED_LISTS[family]),
        ("test cases", len(job.cases) if on_test else "validation instead of", _TESTS[family]),
        ("seeds", len(entry.grid.seeds), item.seeds),
        ("channels", len(job.plan.channels), 1),
        ("classes", len(job.plan.class_names) - 1, 1),
    ]
    found = [
        f"{here} {what if here != 1 else what[:-1]} ({published})"
        for what, here, published in facts
        if here != published
    ]
    if guess_family(entry.name) != family:
        found.insert(0, f"data set {entry.name} ({DATASETS[family]})")
    changed = (name for name in ours if ours[name] != theirs.get(name) and name not in _FREE)
    return found + [f"{name} {_text(ours[name])} ({_text(theirs.get(name))})" for name in changed]


def _settings(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return by name the settings of the first row and the options of all methods: ours, then the paper's."""
    ours, theirs = dict[str, Any](), dict[str, Any]()
    paper = entry.grid.model_copy(update={"settings": {}, "assignments": ()})
    for row in entry.grid.methods:
        place = next(place for place in cells_of(entry.grid) if place.variant == row)
        _collect(ours, settings_of(entry.grid, place))
        _collect(theirs, settings_of(paper, replace(place, preset=PRESETS[entry.family])))
    return ours, theirs


def _collect(found: dict[str, Any], config: Config) -> None:
    values = config.model_dump()
    for section in _SECTIONS:
        for name, value in values[section].items():
            found.setdefault(f"{section}.{name}", value)
    found.setdefault("method.batch", config.method.batch)
    for name, value in config.method.options.items():
        found.setdefault(f"{config.method.name}.{name}", value)


def _text(value: Any) -> str:
    if value is None:
        return "default"
    return " x ".join(f"{side:g}" for side in value) if isinstance(value, list | tuple) else str(value)
