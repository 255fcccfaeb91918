"""The how-to page about benchmarks: its grid loads, its options and ablations exist."""

from __future__ import annotations

import re
from pathlib import Path

from semivox.benchmark.grid import cells_of
from semivox.benchmark.grid_file import ablation_names, load_grid

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "benchmark.md").read_text(encoding="utf-8")


def test_the_grid_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "grid.yaml").write_text(text, encoding="utf-8")
    grid = load_grid(file=tmp_path / "grid.yaml")
    assert len(cells_of(grid)) == 4 * 2 * 3
    assert grid.compare is not None and grid.compare.preset == "hippocampus-lite"


def test_ablations_are_listed() -> None:
    table = PAGE[PAGE.index("## Ablations") : PAGE.index("## Published")]
    assert set(re.findall(r"`(\w+)`", table)) >= {*ablation_names()}
