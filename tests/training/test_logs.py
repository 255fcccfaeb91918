"""The table, the events and what is printed."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest
from engine_toy import loaders_for, make_toy, score, settings
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semivox.training.logs import MetricsTable, RunLog
from semivox.training.progress import Display
from semivox.training.loop import fit


def test_a_late_column_widens_the_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path, 0)
    table.write({"iteration": 1, "loss": 0.5})
    table.write({"iteration": 2, "loss": 0.25, "val_dice": 0.75})
    table.write({"iteration": 1234567, "loss": 1 / 3})
    assert path.read_text() == "iteration,loss,val_dice\n1,0.5,\n2,0.25,0.75\n1234567,0.333333,\n"


def test_reopening_drops_later_and_unfinished_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,loss,val_dice\n1,0.5,\n2,0.25,0.75\n3,0.125,\n4,0.1")
    table = MetricsTable(path, 2)
    table.write({"iteration": 3, "loss": 0.126})
    assert list(pd.read_csv(path)["loss"]) == [0.5, 0.25, 0.126]
    assert path.read_text().splitlines()[0] == "iteration,loss,val_dice"
    MetricsTable(path, 0)
    assert path.read_text() == ""


def events(folder: Path, tag: str) -> dict[int, float]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return {event.step: event.value for event in found.Scalars(tag)}


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for iteration in (1, 2, 3):
        log.write({"iteration": iteration, "loss": iteration / 4, "val_dice": 0.5})
    log.close()
    assert events(tmp_path / "tensorboard", "train/loss") == {1: 0.25, 2: 0.5, 3: 0.75}
    log = RunLog(tmp_path, 2)
    log.write({"iteration": 3, "loss": 8.0})
    log.close()
    assert events(tmp_path / "tensorboard", "train/loss") == {1: 0.25, 2: 0.5, 3: 8.0}
    assert events(tmp_path / "tensorboard", "val/dice") == {1: 0.5, 2: 0.5}


def test_training_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(iterations=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        fit(make_toy(), loaders_for(config), config, tmp_path, validate=score)
    assert [str(warning.message) for warning in caught] == []
    assert caplog.records == []
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "logs"]


def test_away_from_a_terminal_ten_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = settings(iterations=40, budget_s=500.0)
    fit(make_toy(), loaders_for(config), config, tmp_path, validate=None)
    *lines, last = capfd.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[4].startswith("iteration 20/40  loss ") and " supervised 0." in lines[4]
    assert lines[4].endswith(" left") and "it/s" in lines[4]
    assert re.fullmatch(r"took \d s of a budget of 500 s \(-(9\d\.\d|100\.0) %\)", last)
    forecast = pd.read_csv(tmp_path / "logs" / "metrics.csv").set_index("iteration")[
        ["seconds", "forecast_s"]
    ]
    assert forecast.loc[40, "forecast_s"] == pytest.approx(forecast.loc[40, "seconds"], abs=0.06)
    assert forecast.loc[20, "forecast_s"] == pytest.approx(2 * forecast.loc[20, "seconds"], abs=0.06)


def test_in_a_terminal_a_bar() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, highlight=False)
    with Display(100, 40, console=console) as display:
        display.losses(60, {"loss": 0.1234567})
        display.advance(100)
        display.say("a line [with brackets]")
    shown = text.getvalue()
    assert "100/100" in shown and "loss 0.1235" in shown and "0:00 left" in shown
    assert "a line [with brackets]" in shown


def test_the_time_left_follows_the_recent_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick warm-up of 100 steps, 10 ms each, and then 1 s a step."""
    now, text = [0.0], io.StringIO()
    monkeypatch.setattr("semivox.training.progress.time.perf_counter", lambda: now[0])
    with Display(1000, 0, console=Console(file=text, width=120)) as display:
        for done in range(10, 501, 10):
            now[0] += 0.1 if done <= 100 else 10.0
            display.losses(done, {"loss": 1.0})
    lines = text.getvalue().splitlines()
    assert lines[0].endswith("100.00 it/s  0:09 left")
    assert lines[-1].startswith("iteration 500/1000") and lines[-1].endswith("1.00 it/s  8:20 left")
