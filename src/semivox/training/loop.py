"""The training loop. Read `fit` from top to bottom: what a run does stands there in order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import distributed
from torch.utils.data import DataLoader

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.hardware import resolve_device
from semivox.io.process import without_main
from semivox.losses.schedules import Stage
from semivox.methods.base import Batch, Method
from semivox.progress import no_progress, show_progress
from semivox.training import checkpoints
from semivox.training.diagnosis import Diagnosis
from semivox.training.fabric import evaluating, make_fabric, quiet, resolve_precision
from semivox.training.failures import deferred_signals, explained, outlive_signals
from semivox.training.logs import Recorder, Validate, due
from semivox.training.step import Stepper, streams

MakeLoaders = Callable[[Stage, int, int, int], dict[str, DataLoader[Any]]]
"""(stage, start, rank, world) -> loaders by stream: a batch for every iteration of the stage from `start`."""
Teach = Callable[[Method, torch.device, Stage], None]
"""(method, device, stage) -> nothing; makes the pseudo-labels that the stage's loaders read, once."""
Batches = Generator[tuple[int, Batch, Batch]]
"""(iteration, labeled, unlabeled), on this process's device."""


@dataclass(frozen=True)
class FitResult:
    """What a finished run tells."""

    iterations: int  # optimiser steps done
    seconds: float  # wall-clock time, validation and resumed parts included
    best: dict[str, Any] | None  # `iteration`, `dice` and other scores of best.ckpt, if anything validated


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
    total, device = config.iterations, resolve_device(config.device)
    state, best = checkpoints.resume(folder, method)
    if state.iteration >= total:
        method.load_state_dict(state.average or state.weights)
        return FitResult(state.iteration, state.seconds, best)
    precision = resolve_precision(config.precision, device, state.precision)
    fabric = make_fabric(device, precision, processes=processes)
    if state.scaler:
        fabric.strategy.precision.load_state_dict(state.scaler)
    progress = show_progress if bar and fabric.is_global_zero else no_progress
    with quiet(), explained(), deferred_signals() as interruption:
        stepper = Stepper(fabric, method.train(), config, state)
        diagnosis = diagnosis if fabric.is_global_zero else None
        if diagnosis is not None:
            diagnosis.begin(state.iteration)
        with (
            closing(Recorder(stepper, folder, state, best, validate)) as recorder,
            closing(all_batches(stepper, make_loaders, teach, state.iteration)) as batches,
            progress("training") as report,
        ):
            report(state.iteration, total)
            for iteration, labeled, unlabeled in batches:
                if diagnosis is not None:
                    diagnosis.look(stepper, iteration, labeled, unlabeled)
                stepper.step(iteration, labeled, unlabeled)
                if diagnosis is not None:
                    diagnosis.look(stepper, iteration + 1)
                stop = agreed(fabric, config, iteration + 1, interruption.pending is not None)
                recorder.after(iteration + 1, stop=stop)
                report(iteration + 1, total, *recorder.shown)
                if stop:
                    raise interruption.error()
    method.load_state_dict(stepper.averaged.state_dict())
    method.cpu()
    return FitResult(total, recorder.seconds, recorder.best)


def all_batches(stepper: Stepper, make_loaders: MakeLoaders, teach: Teach | None, start: int) -> Batches:
    """Yield the batches of the run from iteration `start`; begin each stage, or resume it, before its own.

    A stage after the first begins with the averaged weights, a fresh optimiser, and what `teach` makes.
    """
    fabric = stepper.fabric
    for stage in stepper.stages:
        if stage.stop <= start:
            continue
        if stage.index:
            if start <= stage.start:
                stepper.restart()
            if teach is not None and fabric.is_global_zero:
                with evaluating(stepper.averaged, fabric):
                    teach(stepper.averaged, fabric.device, stage)
            fabric.barrier()
        yield from stage_batches(fabric, make_loaders, stage, max(start, stage.start))


def stage_batches(fabric: Fabric, make_loaders: MakeLoaders, stage: Stage, start: int) -> Batches:
    """Yield the batches of a stage from iteration `start`; its loader processes end with the generator."""
    loaders = make_loaders(stage, start, fabric.global_rank, fabric.world_size)
    if not loaders:
        do = "check the split and train.batch_labeled, train.batch_unlabeled"
        raise UserError("There is nothing to train on", "no batches", "a stream with cases", do)
    left, lengths = stage.stop - start, {name: len(loader) for name, loader in loaders.items()}
    if set(lengths.values()) != {left}:
        raise ValueError(f"loaders must have {left} batches, found {lengths}")
    for loader in loaders.values():
        loader.worker_init_fn = outlive_signals
    with without_main():
        iterators = [iter(loader) for loader in loaders.values()]
    try:
        for index, parts in enumerate(zip(*iterators, strict=True)):
            batch = fabric.to_device(dict(zip(loaders, parts, strict=True)))
            yield start + index, *streams(batch)
    finally:
        for iterator in iterators:  # now: an exception held somewhere would let its processes live on
            getattr(iterator, "_shutdown_workers", lambda: None)()


def agreed(fabric: Fabric, config: TrainConfig, done: int, stop: bool) -> bool:
    """Whether any process wants to stop; several ask each other only where losses are logged."""
    if fabric.world_size == 1:
        return stop
    if not due(done, config.log_every, config.iterations):
        return False
    votes = torch.tensor([float(stop)], device=fabric.device)
    distributed.all_reduce(votes)
    return bool(votes.item())
