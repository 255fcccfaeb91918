"""A run that was killed and started again is the run that was never killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import engine_toy
import pandas as pd
import pytest
import torch
from engine_toy import (
    assert_same_weights,
    kill_run,
    loaders_for,
    make_toy,
    score,
    settings,
    shared_run,
    table,
)

from semivox.errors import Terminated, UserError
from semivox.training.checkpoints import best_path, last_path, load
from semivox.training.loop import fit


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    log = killed / "logs" / "metrics.csv"
    process = subprocess.Popen(
        [sys.executable, engine_toy.__file__, "kill", str(killed), "0.03", "0"], stderr=subprocess.DEVNULL
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

    resumed, straight = kill_run(killed), kill_run(whole)

    assert_same_weights(resumed, straight)
    pd.testing.assert_frame_equal(table(killed), table(whole), check_exact=True)
    a, b = load(last_path(killed)), load(last_path(whole))
    assert all(torch.equal(x, y) for x, y in zip(a.momentum, b.momentum, strict=True))
    assert load(best_path(killed)).scores == load(best_path(whole)).scores


def interrupted_at(folder: Path, iteration: int, *what: int | type[BaseException]) -> None:
    """Stop a run inside step `iteration` (from 0), by signals or an exception."""
    toy, config = make_toy(), settings()

    def hook(labeled: object, unlabeled: object, step: object) -> None:
        if step.iteration == iteration:  # type: ignore[attr-defined]
            for one in what:
                if isinstance(one, int):
                    os.kill(os.getpid(), one)
                else:
                    raise one

    toy.hook = hook
    fit(toy, loaders_for(config), config, folder, validate=score)


@pytest.mark.parametrize(
    ("what", "error", "left"),
    [
        ((signal.SIGINT,), KeyboardInterrupt, 14),
        ((signal.SIGTERM,), Terminated, 14),
        ((signal.SIGTERM, signal.SIGTERM), Terminated, 10),  # the second one does not wait
        ((KeyboardInterrupt,), KeyboardInterrupt, 10),
    ],
)
def test_signals_leave_a_checkpoint_of_the_step_they_came_in(
    tmp_path: Path, what: tuple[Any, ...], error: type[BaseException], left: int
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted_at(tmp_path / "stopped", 13, *what)
    assert caught.type is error
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert load(last_path(tmp_path / "stopped")).iteration == left
    assert_same_weights(kill_run(tmp_path / "stopped"), kill_run(tmp_path / "whole"))
    pd.testing.assert_frame_equal(table(tmp_path / "stopped"), table(tmp_path / "whole"), check_exact=True)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "Terminated")]
)
def test_loader_processes_that_get_the_signal_too_stay_out_of_the_way(
    tmp_path: Path, number: int, error: str
) -> None:
    """As from a terminal, `timeout` or a scheduler: the signal goes to the whole group of processes."""
    process = subprocess.Popen(
        [sys.executable, engine_toy.__file__, "kill", str(tmp_path), "0.05", "2"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 80
        while not last_path(tmp_path).exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        os.killpg(process.pid, number)
        assert process.communicate(timeout=60)[1].split() == [error]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert 10 < load(last_path(tmp_path)).iteration < 40


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    config = settings(iterations=6)
    trained = make_toy()
    first = fit(trained, loaders_for(config), config, tmp_path, validate=score)
    again = make_toy(seed=5)
    again.hook = lambda *_: pytest.fail("trained again")
    second = fit(again, loaders_for(config), config, tmp_path, validate=score)
    assert (second.iterations, second.best) == (first.iterations, first.best)
    assert second.seconds == pytest.approx(first.seconds, abs=0.5)
    assert_same_weights(again, trained)


@pytest.mark.parametrize("damage", ["cut", "one byte", "garbage", "foreign"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, damage: str) -> None:
    config = settings(iterations=4)
    fit(make_toy(), loaders_for(config), config, tmp_path)
    path = last_path(tmp_path)
    content = path.read_bytes()
    inside = load(path).weights["norm.running_var"].numpy().tobytes()
    weights = content.index(inside)
    if damage == "foreign":
        torch.save({"weights": {}}, path)
    else:
        other = content[:weights] + bytes([content[weights] ^ 1]) + content[weights + 1 :]
        kinds = {"cut": content[: len(content) // 2], "one byte": other, "garbage": b"nothing"}
        path.write_bytes(kinds[damage])
    with pytest.raises(UserError, match="--fresh") as error:
        fit(make_toy(), loaders_for(config), config, tmp_path)
    assert error.value.path == path


def test_more_iterations_extend_a_run(tmp_path: Path) -> None:
    """It goes on at the step where it ended, with the learning rate of the longer schedule."""
    config = settings(iterations=4, log_every=1, schedule="poly")
    fit(make_toy(), loaders_for(config), config, tmp_path)
    longer = settings(iterations=8, log_every=1, schedule="poly")
    result = fit(make_toy(), loaders_for(longer), longer, tmp_path)
    assert result.iterations == 8
    rates = pd.read_csv(tmp_path / "logs" / "metrics.csv").set_index("iteration")["lr"]
    assert rates.index.tolist() == list(range(1, 9))
    assert rates[4] < rates[5] == pytest.approx(longer.lr * (1 - 4 / 8) ** 0.9, rel=1e-4)


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    config = settings(iterations=4)
    fit(make_toy(), loaders_for(config), config, tmp_path)
    longer = settings(iterations=6)
    with pytest.raises(UserError, match="size mismatch for average"):
        fit(make_toy(width=8), loaders_for(longer), longer, tmp_path)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each takes half of the patches; both end with the weights of one process that takes all of them."""
    subprocess.run(
        [sys.executable, engine_toy.__file__, "share", str(tmp_path)], check=True, timeout=300,
        env={name: value for name, value in os.environ.items() if name != "LOCAL_RANK"},
    )  # fmt: skip
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    alone = shared_run(tmp_path / "alone", processes=1).state_dict()
    for name, value in alone.items():
        assert value.isfinite().all()
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-4, atol=1e-6)
    assert load(last_path(tmp_path)).iteration == 8
    assert list(table(tmp_path)["iteration"]) == [1, 2, 4, 6, 8]
