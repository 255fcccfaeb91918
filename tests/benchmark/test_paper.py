"""A table and the pictures of the paper on phantoms, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import semivox
from semivox.benchmark.pictures import spread_cases

SMALL: dict[str, Any] = {
    "presets": ["la-8-lite"],  # so that numbers of labels stand for shares of LA
    "labels": [2],
    "seeds": 1,
    "methods": ["supervised", "dual"],
    "settings": {
        "net": {"width": 2},
        "split": {"val": 0},
        "plan": {"spacing_mm": [2.5, 2.5, 2.5], "patch": [16, 16, 32]},
        "train": {"iterations": 2, "workers": 0, "validate_every": 1000, "precision": "32"},
    },
}


@pytest.fixture(scope="module")
def out(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first table, made."""
    place = tmp_path_factory.mktemp("paper")
    made = semivox.replicate("table1", phantoms, out=place, changes=SMALL)
    assert made.files == ["table1.md", "table1.tex", "table1.csv"]
    assert not made.outcomes["phantoms"].failed
    return place


def test_a_table_has_a_row_with_all_labels_and_each_network_alone(out: Path) -> None:
    lines = pd.read_csv(out / "table1.csv", keep_default_na=False)
    ours = lines[lines["seeds"] != ""]
    assert [(row["row"], row["labels"], row["network"]) for _, row in ours.iterrows()] == [
        ("supervised", "2.0", ""), ("dual", "2.0", ""), ("dual", "2.0", "resnet34"), ("dual", "2.0", "vnet"),
        ("supervised", "6.0", ""),
    ]  # fmt: skip
    assert ours["dice_published"].iloc[-1] == "90.62", "all labels stand beside all labels"
    text = (out / "table1.md").read_text(encoding="utf-8")
    assert "| 100% | 6 | supervised | 90.62 ± 0.61 |" in text and "89.45 ± 0.58" in text
    assert "dual, resnet34 alone" in text and "parameters, paper" in text
    assert (out / "table1.tex").read_text(encoding="utf-8").count(r"\begin{tabular}") == 3
    mark = "(in brackets: published): data set phantoms (LA), 2 iterations (6000), 6 training cases (80)"
    assert mark in text and "not as published: data set phantoms (LA)" in (out / "table1.tex").read_text()


def test_figures_use_the_finished_runs_of_the_table(out: Path, phantoms: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in out.rglob("model.safetensors")}
    drawn = {"figure1": ["figure1.png"], "figure5": ["figure5-slices.png", "figure5-surfaces.pdf"]}
    for item, names in drawn.items():
        made = semivox.replicate(item, [phantoms], out=out, changes=SMALL, max_hours=0)
        assert set(names) <= set(made.files) and not made.outcomes["phantoms"].left
        assert all((out / name).stat().st_size > 3000 for name in names)
    after = {file: file.stat().st_mtime_ns for file in out.rglob("model.safetensors")}
    assert after == before and len(before) == 3


def test_without_time_published_figures_and_sizes_are_written(out: Path, phantoms: Path) -> None:
    changes = {**SMALL, "methods": ["tau = 0.6", "temperature = 0.5", "tau = 0.4"]}
    made = semivox.replicate("figure8", phantoms, out=out, changes=changes, max_hours=0)
    assert made.files == ["figure8.md", "figure8.tex", "figure8.csv"]
    assert len(made.outcomes["phantoms"].left) == 3
    cells = made.outcomes["phantoms"].cells
    assert cells[0].run == cells[1].run != cells[2].run, "rows that mean the published setting share a run"
    dry = semivox.replicate("figure8", phantoms, out=out, changes=changes, dry_run=True)
    states = [cell.state for cell in dry.outcomes["phantoms"].forecast]
    assert not dry.files and states == ["open", "the run of tau = 0.6", "open"]


def test_cases_are_spread_over_the_ranks() -> None:
    scores = pd.DataFrame({"a": [0.9, 0.1, 0.5, 0.6], "b": [0.9, 0.3, 0.5, 0.8]}, index=["p", "q", "r", "s"])
    assert spread_cases(scores, 3) == ["q", "s", "p"]
    assert spread_cases(scores, 9) == ["q", "r", "s", "p"] and spread_cases(scores, 1) == ["q"]
