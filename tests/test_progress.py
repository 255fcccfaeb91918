"""Progress for people and for programs."""

from __future__ import annotations

import json

import pytest

from semivox import progress


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(progress._form, "json", True)


def test_json_lines(as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.show_progress("training") as report:
        report(0, 10)
        report(5, 10, "loss 0.5", {"loss": 0.5, "val_dice": float("nan")})
        report(6, 10, "loss 0.5", {"loss": 0.5, "val_dice": None})
        report(10, 10, "loss 0.25", {"loss": 0.25})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == {"step": "training", "done": 0, "total": 10}
    assert lines[1]["values"] == {"loss": 0.5, "val_dice": None}
    assert lines[1]["seconds_left"] >= 0
    assert (lines[-1]["done"], lines[-1]["seconds_left"], lines[-1]["values"]) == (10, 0, {"loss": 0.25})


def test_json_lines_are_at_most_one_a_second_without_news(
    as_json: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 100.2, 100.4, 101.5, 101.6])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    with progress.show_progress("predict") as report:
        for done in range(1, 6):
            report(done, 5, f"case_{done}")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["name"] for line in lines] == ["case_1", "case_4", "case_5"]
    assert lines[1]["seconds_left"] == 0.5  # three cases in 1.5 s, one to do


def test_lines_for_people_show_values_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.show_progress("training") as report:
        report(0, 10)
        report(5, 10, "validation Dice 0.800  loss 0.5000", {"loss": 0.5})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("training: 5/10  validation Dice 0.800  loss 0.5000") and line.endswith("left")
