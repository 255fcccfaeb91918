"""The picture of paired scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from semivox.reporting.paired import save_paired_scores


def test_only_common_cases_are_drawn_and_means_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: object, **kwargs: object) -> None:
        drawn.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    scores = {"before": {"a": 0.5, "b": 0.7, "c": 0.1}, "after": {"a": 0.6, "b": 0.9}}
    save_paired_scores(tmp_path / "paired.png", scores)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == ["0.600", "0.750"]
    assert "2 cases" in axes.get_ylabel()
    assert (tmp_path / "paired.png").stat().st_size > 1000
