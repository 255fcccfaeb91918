"""A run that was killed and started again is the run that was never killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import engine_toy
import pandas as pd
import pytest
import torch
from engine_toy import kill_run, loaders_for, make_toy, score, settings

from semivox.errors import UserError
from semivox.training.checkpoints import best_path, last_path, load
from semivox.training.loop import fit


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "logs" / "metrics.csv").drop(columns="seconds")


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(a.state_dict()[name], value) for name, value in b.state_dict().items())


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    log = killed / "logs" / "metrics.csv"
    process = subprocess.Popen(
        [sys.executable, engine_toy.__file__, str(killed), "0.03"], stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 80
        while not (log.is_file() and "\n24," in log.read_text()):
            assert process.poll() is None and time.monotonic() < until, "the run ended before it was killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert load(last_path(killed)).iteration == 20
    assert table(killed)["iteration"].max() >= 24  # rows that the resumed run must drop

    resumed, straight = kill_run(killed, slow_s=0), kill_run(whole, slow_s=0)

    assert same_weights(resumed, straight)
    pd.testing.assert_frame_equal(table(killed), table(whole), check_exact=True)
    a, b = load(last_path(killed)), load(last_path(whole))
    assert all(torch.equal(x, y) for x, y in zip(a.momentum, b.momentum, strict=True))
    assert load(best_path(killed)).scores == load(best_path(whole)).scores


def interrupted_at(folder: Path, iteration: int, how: type[BaseException] | int) -> None:
    """Stop a run inside step `iteration` (from 0), by an exception or a signal."""
    toy, config = make_toy(), settings()

    def hook(labeled: object, unlabeled: object, step: object) -> None:
        if step.iteration == iteration:  # type: ignore[attr-defined]
            if isinstance(how, int):
                os.kill(os.getpid(), how)
            else:
                raise how

    toy.hook = hook
    fit(toy, loaders_for(config), config, folder, validate=score)


def test_ctrl_c_is_a_keyboard_interrupt_and_resumes(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted_at(tmp_path / "stopped", 13, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is before
    assert same_weights(kill_run(tmp_path / "stopped", 0), kill_run(tmp_path / "whole", 0))
    pd.testing.assert_frame_equal(table(tmp_path / "stopped"), table(tmp_path / "whole"), check_exact=True)


def test_sigterm_leaves_a_checkpoint_of_the_step_it_came_in(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        interrupted_at(tmp_path / "stopped", 13, signal.SIGTERM)
    assert load(last_path(tmp_path / "stopped")).iteration == 14
    assert same_weights(kill_run(tmp_path / "stopped", 0), kill_run(tmp_path / "whole", 0))


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    config = settings(iterations=6)
    trained = make_toy()
    first = fit(trained, loaders_for(config), config, tmp_path, validate=score)
    again = make_toy(seed=5)
    again.hook = lambda *_: pytest.fail("trained again")
    second = fit(again, loaders_for(config), config, tmp_path, validate=score)
    assert (second.iterations, second.best) == (first.iterations, first.best)
    assert second.seconds == pytest.approx(first.seconds, abs=0.5)
    assert same_weights(again, trained)


def test_fresh_starts_over(tmp_path: Path) -> None:
    config = settings(iterations=6)
    steps = []
    for fresh in (False, True):
        toy = make_toy()
        toy.hook = lambda labeled, unlabeled, step: steps.append(step.iteration)
        fit(toy, loaders_for(config), config, tmp_path, validate=None, fresh=fresh)
    assert steps == [*range(6), *range(6)]
    assert list(table(tmp_path)["iteration"]) == [1, 2, 4, 6]


@pytest.mark.parametrize("damage", ["cut", "one byte", "garbage", "foreign"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, damage: str) -> None:
    config = settings(iterations=4)
    fit(make_toy(), loaders_for(config), config, tmp_path, validate=None)
    path = last_path(tmp_path)
    content = path.read_bytes()
    middle = len(content) // 2
    inside = load(path).weights["norm.running_var"].numpy().tobytes()
    weights = content.index(inside)
    if damage == "foreign":
        torch.save({"weights": {}}, path)
    else:
        path.write_bytes(
            {
                "cut": content[:middle],
                "one byte": content[:weights] + bytes([content[weights] ^ 1]) + content[weights + 1 :],
                "garbage": b"nothing",
            }[damage]
        )
    with pytest.raises(UserError, match="--fresh") as error:
        fit(make_toy(), loaders_for(config), config, tmp_path, validate=None)
    assert error.value.path == path
    fit(make_toy(), loaders_for(config), config, tmp_path, validate=None, fresh=True)


def test_more_iterations_extend_a_run(tmp_path: Path) -> None:
    """It goes on at the step where it ended, with the learning rate of the longer schedule."""
    config = settings(iterations=4, log_every=1, schedule="poly")
    fit(make_toy(), loaders_for(config), config, tmp_path, validate=None)
    longer = settings(iterations=8, log_every=1, schedule="poly")
    result = fit(
        make_toy(), loaders_for(longer), longer, tmp_path, validate=None
    )
    assert result.iterations == 8
    rates = pd.read_csv(tmp_path / "logs" / "metrics.csv").set_index("iteration")["lr"]
    assert rates.index.tolist() == list(range(1, 9))
    assert rates[4] < rates[5] == pytest.approx(longer.lr * (1 - 4 / 8) ** 0.9, rel=1e-4)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    config = settings(iterations=4)
    fit(make_toy(), loaders_for(config), config, tmp_path, validate=None)
    shorter = settings(iterations=3, log_every=1)
    with pytest.raises(UserError, match="iterations=4") as error:
        fit(make_toy(), loaders_for(shorter), shorter, tmp_path, validate=None)
    assert error.value.expected == "iterations=3"
    wide = make_toy(width=8)
    with pytest.raises(UserError, match="other settings"):
        fit(wide, loaders_for(config), config, tmp_path, validate=None)
    wide.config = make_toy().config
    with pytest.raises(UserError, match=r"average \(1?"):
        fit(wide, loaders_for(config), config, tmp_path, validate=None)
