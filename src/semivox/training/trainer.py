"""`fit`: train a method, or go on where a killed run stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semivox.config import TrainConfig
from semivox.hardware import resolve_device
from semivox.methods.base import Method
from semivox.training import checkpoints
from semivox.training.callbacks import Recorder, Validate
from semivox.training.checkpoints import Checkpoint
from semivox.training.diagnosis import Diagnoser, Diagnosis
from semivox.training.failures import explained
from semivox.training.host import make_trainer, quiet
from semivox.training.logs import RunLog
from semivox.training.module import MakeLoaders, TrainingModule
from semivox.training.precision import continued_precision, resolve_precision
from semivox.training.progress import Display


@dataclass(frozen=True)
class FitResult:
    """What a finished run tells.

    Attributes:
        iterations: optimiser steps done.
        seconds: wall-clock time, validation and resumed parts included.
        best: `iteration`, `dice` and the other scores of `checkpoints/best.ckpt`; None without validation.
    """

    iterations: int
    seconds: float
    best: dict[str, Any] | None


def fit(
    method: Method,
    make_loaders: MakeLoaders,
    config: TrainConfig,
    folder: Path,
    *,
    validate: Validate | None,
    fresh: bool,
    progress: bool = True,
    diagnosis: Diagnosis | None = None,
    spent_s: float = 0.0,
) -> FitResult:
    """Train `method` in place for `config.iterations` steps; on return it holds the last weights, on the CPU.

    Called again on the same folder it goes on from the last checkpoint, to the same result (bit for bit in
    32 bit arithmetic on one CPU); a finished run is only read. The method is put into training mode first;
    one whose parts must stay in evaluation mode overrides `train`.

    Args:
        method: built, with its initial weights.
        make_loaders: (first iteration, rank, world) -> loaders of the streams, which may lack one of them.
        config: settings of the run; `iterations` is taken as it is, also with a budget.
        folder: run folder; gets checkpoints/last.ckpt and best.ckpt, logs/metrics.csv and tensorboard/.
        validate: called in evaluation mode under autocast; its `dice` decides best.ckpt.
        fresh: forget a run in this folder.
        progress: show a bar, or a line every tenth of the run away from a terminal.
        diagnosis: what to measure of the run beside; it changes nothing in the result.
        spent_s: what the budget's probe took, for the message at the end.

    Raises:
        UserError: unusable device or precision, damaged or foreign checkpoint, loss that is not finite,
            memory that ran out.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    run = checkpoints.describe_run(method, config)
    state, best = _previous(folder, method, run, fresh=fresh)
    if state.iteration >= config.iterations:
        return FitResult(state.iteration, state.seconds, best)
    if config.precision == "auto":
        precision = continued_precision(precision, state.precision, device)
    method.train()
    start = state.iteration
    log = RunLog(folder / "logs", start)
    with Display(config.iterations, start, enabled=progress) as display:
        recorder = Recorder(
            config, folder, run, validate=validate, log=log, display=display, seconds=state.seconds, best=best
        )
        module = TrainingModule(
            method,
            make_loaders,
            config,
            start=start,
            momentum=state.momentum if start else None,
            critic=state.critic,
        )
        with quiet(), _explained(recorder, log, display):
            callbacks = [Diagnoser(diagnosis, config, start), recorder] if diagnosis else [recorder]
            trainer = make_trainer(device, precision, callbacks)
            if state.scaler:
                trainer.precision_plugin.load_state_dict(state.scaler)
            trainer.fit(module)
        if config.budget_s is not None:
            spent, budget = spent_s + recorder.seconds, config.budget_s
            display.say(
                f"took {spent:.0f} s of a budget of {budget:.0f} s ({100 * (spent / budget - 1):+.1f} %)"
            )
    return FitResult(config.iterations, recorder.seconds, recorder.best)


def _previous(
    folder: Path, method: Method, run: dict[str, Any], *, fresh: bool
) -> tuple[Checkpoint, dict[str, Any] | None]:
    """Load the weights of the run in `folder` into `method`; return its state and its best scores."""
    last, best = checkpoints.last_path(folder), checkpoints.best_path(folder)
    if fresh or not last.is_file():
        last.unlink(missing_ok=True)
        best.unlink(missing_ok=True)
        return Checkpoint(0, {}), None
    state = checkpoints.load(last)
    checkpoints.require_same_run(last, state, run)
    checkpoints.load_weights(last, method, state)
    if not best.is_file():
        return state, None
    found = checkpoints.load(best)
    return state, {"iteration": found.iteration, **found.scores}


@contextmanager
def _explained(recorder: Recorder, log: RunLog, display: Display) -> Iterator[None]:
    """Close the log; turn known failures into a `UserError`, and Lightning's exit on Ctrl-C back."""
    try:
        with explained():
            yield
    except SystemExit as error:
        display.say("stopped; the same command goes on from the last checkpoint")
        if recorder.interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        log.close()
