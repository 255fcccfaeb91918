"""The training loop. Read `fit` from top to bottom: what a run does stands there in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import distributed
from torch.utils.data import DataLoader

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.hardware import resolve_device
from semivox.losses.schedules import Stage
from semivox.methods.base import Batch, Method, fixed
from semivox.progress import no_progress, show_progress
from semivox.training import checkpoints
from semivox.training.checkpoints import Checkpoint
from semivox.training.diagnosis import Diagnoser, Diagnosis
from semivox.training.fabric import (
    Precision,
    autocast,
    make_fabric,
    quiet,
    resolve_precision,
    resumed_precision,
)
from semivox.training.failures import deferred_signals, explained, not_finite, shield, shut_down
from semivox.training.logs import RunLog, Value
from semivox.training.step import Stepper, precision_of, streams

MakeLoaders = Callable[[Stage, int, int, int], dict[str, DataLoader[Any]]]
"""(stage, start, rank, world) -> loaders by stream: a batch for every iteration of the stage from `start`."""
Validate = Callable[[Method, torch.device, int], dict[str, float]]
"""(method, device, iterations done) -> scores of whole validation cases, among them `dice`."""
Teach = Callable[[Method, torch.device, Stage], None]
"""(method, device, stage) -> nothing; makes the pseudo-labels that the stage's loaders read, once."""

VALIDATIONS, SAVES = 10, 20  # a run, where `validate_every` and `checkpoint_every` are not set


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
    validate: Validate | None = None,
    teach: Teach | None = None,
    bar: bool = False,
    diagnosis: Diagnosis | None = None,
    processes: int = 1,
) -> FitResult:
    """Train `method` in place for `config.iterations` steps; it then holds the result, on the CPU.

    The result are the averaged weights with `train.average`, else the last ones. Called again on the same
    folder it resumes from the last checkpoint, to the same result (bit for bit in 32 bit arithmetic on one
    CPU); a finished run is only read. SIGINT and SIGTERM end the run after the step or validation under way,
    with a checkpoint.

    Args:
        method: built, with its initial weights.
        make_loaders: of the streams, which may lack one of them.
        config: settings of the run; `iterations` is taken as it is, also with a budget.
        folder: run folder; gets checkpoints/last.ckpt and best.ckpt, logs/metrics.csv and tensorboard/.
        validate: called in evaluation mode under autocast; its `dice` decides best.ckpt.
        teach: likewise, with the averaged weights, before each stage but the first and where one resumes.
        bar: show the progress.
        diagnosis: what to measure of the run beside; it changes nothing in the result.
        processes: that share the work; each takes batches of its own, gradients are averaged.

    Raises:
        UserError: unusable device or precision, damaged checkpoint, loss not finite, no memory, full disk.
        KeyboardInterrupt: a signal ended the run; its subclass `Terminated` stands for SIGTERM.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    state, best = checkpoints.resume(folder, method)
    if state.iteration >= config.iterations:
        method.load_state_dict(state.average or state.weights)
        return FitResult(state.iteration, state.seconds, best)
    if config.precision == "auto":
        precision = resumed_precision(precision, state.precision, device)
    fabric = make_fabric(device, precision, processes=processes)
    if state.scaler:
        fabric.strategy.precision.load_state_dict(state.scaler)
    start, total = state.iteration, config.iterations
    with quiet(), explained(), deferred_signals() as interruption:
        stepper = Stepper(fabric, method.train(), config, state)
        with (
            closing(Recorder(stepper, folder, state, best, validate)) as recorder,
            (show_progress if bar and fabric.is_global_zero else no_progress)("training") as report,
        ):
            report(start, total)
            diagnoser = Diagnoser(diagnosis, config, start) if diagnosis and fabric.is_global_zero else None
            for stage in stepper.stages:
                if stage.stop <= start:
                    continue
                if stage.index:
                    begin(stage, stepper, teach, fresh=start <= stage.start)
                steps = batches(fabric, make_loaders, stage, max(start, stage.start))
                with closing(steps):
                    for iteration, labeled, unlabeled in steps:
                        if diagnoser:
                            diagnoser.before(stepper, iteration, labeled, unlabeled)
                        stepper.step(iteration, labeled, unlabeled)
                        if diagnoser:
                            diagnoser.after(stepper, iteration + 1)
                        stop = agreed(fabric, config, iteration + 1, interruption.pending is not None)
                        recorder.after(iteration + 1, stop=stop)
                        report(iteration + 1, total, *recorder.shown)
                        if stop:
                            raise interruption.error()
    method.load_state_dict(stepper.averaged.state_dict())
    method.cpu()
    return FitResult(total, recorder.seconds, recorder.best)


def begin(stage: Stage, stepper: Stepper, teach: Teach | None, *, fresh: bool) -> None:
    """Begin a stage after the first: averaged weights, a fresh optimiser; or resume it. Teach what is due."""
    if fresh:
        stepper.restart()
    if teach is not None and stepper.fabric.is_global_zero:
        with evaluating(stepper.averaged), autocast(stepper.fabric):
            teach(stepper.averaged, stepper.fabric.device, stage)
    stepper.fabric.barrier()


def batches(
    fabric: Fabric, make_loaders: MakeLoaders, stage: Stage, start: int
) -> Generator[tuple[int, Batch, Batch]]:
    """Yield (iteration, labeled, unlabeled) of a stage from iteration `start`, on this process's device."""
    loaders = make_loaders(stage, start, fabric.global_rank, fabric.world_size)
    if not loaders:
        raise UserError(
            "There is nothing to train on",
            "no labeled and no unlabeled batches",
            "at least one stream with cases",
            "check the split and train.batch_labeled, train.batch_unlabeled",
        )
    left, lengths = stage.stop - start, {name: len(loader) for name, loader in loaders.items()}
    if any(length != left for length in lengths.values()):
        raise ValueError(f"loaders must have {left} batches, found {lengths}")
    for loader in loaders.values():
        shield(loader)
    iterators = [iter(loader) for loader in loaders.values()]
    try:
        for index, parts in enumerate(zip(*iterators, strict=True)):
            batch = fabric.to_device(dict(zip(loaders, parts, strict=True)))
            yield start + index, *streams(batch)
    finally:
        for iterator in iterators:
            shut_down(iterator)


def interval(setting: int | None, total: int, times: int) -> int:
    """Return `setting`, or the interval that gives at most `times` events in `total` iterations."""
    return setting or -(-total // times)


def due(done: int, every: int, total: int) -> bool:
    """Whether something that happens at every `every`-th iteration, and at the last, happens after `done`."""
    return done % every == 0 or done == total


def agreed(fabric: Fabric, config: TrainConfig, done: int, stop: bool) -> bool:
    """Whether any process wants to stop; several ask each other only where losses are logged."""
    if fabric.world_size == 1:
        return stop
    if not due(done, config.log_every, config.iterations):
        return False
    votes = torch.tensor([float(stop)], device=fabric.device)
    distributed.all_reduce(votes)
    return bool(votes.item())


@contextmanager
def evaluating(method: Method) -> Iterator[None]:
    """Switch to evaluation mode without gradients; afterwards every module has the mode it had before."""
    with fixed(method), torch.no_grad():
        yield


class Recorder:
    """Reads the losses, validates, writes the log and the checkpoints; only the first process does so.

    Between the iterations at which one of these is due nothing is read from the device.

    Args:
        stepper, folder: what is trained, and where.
        state, best: from which the run resumes; `iteration` and scores of the best checkpoint so far.
        validate: see `fit`.
    """

    def __init__(
        self,
        stepper: Stepper,
        folder: Path,
        state: Checkpoint,
        best: dict[str, Any] | None,
        validate: Validate | None,
    ) -> None:
        self._stepper, self._folder, self.best, self._validate = stepper, folder, best, validate
        self._log = RunLog(folder / "logs", state.iteration) if stepper.fabric.is_global_zero else None
        self._began = time.perf_counter() - state.seconds
        self.shown: tuple[str, dict[str, Value]] = ("", {})
        self._config = config = stepper.config
        self._run = {"iterations": config.iterations}
        self._validate_every = interval(config.validate_every, config.iterations, VALIDATIONS)
        self._save_every = interval(config.checkpoint_every, config.iterations, SAVES)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run, resumed parts included."""
        return time.perf_counter() - self._began

    def after(self, done: int, *, stop: bool) -> None:
        """Do what is due after `done` steps; if the run is about to `stop`, save its state."""
        total = self._config.iterations
        logs = due(done, self._config.log_every, total) or done == 1
        validates = self._validate is not None and due(done, self._validate_every, total)
        ends = any(done == stage.stop for stage in self._stepper.stages)
        saves = due(done, self._save_every, total) or stop or ends
        if self._log is not None and (logs or validates or saves):
            self._read(self._log, done, logs=logs, validates=validates, saves=saves)

    def _read(self, log: RunLog, done: int, *, logs: bool, validates: bool, saves: bool) -> None:
        losses, notes, broken = self._stepper.watch.read()
        row = self._row(done, losses, notes)
        if broken:
            log.write(row)
            raise not_finite(broken, self._config.iterations)
        if validates or saves:
            checkpoints.require_finite(self._stepper.method, done)
        if validates:
            row |= self._validated(done)
            log.picture(done, getattr(self._validate, "picture", None))
        if logs or validates:
            log.write(row)
            self.shown = log.shown(losses)
        if saves:
            log.flush()
            self._save(done)

    def _row(self, done: int, losses: dict[str, float], notes: dict[str, float]) -> dict[str, Value]:
        row: dict[str, Value] = {"iteration": done, "seconds": round(self.seconds, 3)}
        row |= {"lr": self._stepper.lr(done - 1), "loss": sum(losses.values())}
        if self._config.budget_s is not None:
            row["forecast_s"] = round(self.seconds * self._config.iterations / done, 1)
        for name, value in (*losses.items(), *notes.items()):
            row[name if name not in row else f"{name}_"] = value
        return row

    def _validated(self, done: int) -> dict[str, Value]:
        """Score the weights, keep them if their Dice is the highest so far, return the columns."""
        assert self._validate is not None
        method, fabric = self._stepper.averaged, self._stepper.fabric
        with evaluating(method), autocast(fabric):
            found = self._validate(method, fabric.device, done)
        scores = {name: float(value) for name, value in found.items()}
        dice = scores.get("dice", math.nan)
        if not math.isnan(dice) and (self.best is None or dice > self.best["dice"]):
            self.best = {"iteration": done, **scores}
            best = Checkpoint(done, dict(method.state_dict()), run=self._run, scores=scores)
            checkpoints.save(checkpoints.best_path(self._folder), best)
        return {f"val_{name}": value for name, value in scores.items()}

    def _save(self, done: int) -> None:
        fabric = self._stepper.fabric
        checkpoint = Checkpoint(done, **self._stepper.state(), seconds=self.seconds, run=self._run)
        checkpoint.scaler = dict(fabric.strategy.precision.state_dict())
        checkpoint.precision = cast("Precision", precision_of(fabric))
        checkpoints.save(checkpoints.last_path(self._folder), checkpoint)
