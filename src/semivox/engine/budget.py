"""How many iterations fit into a given time."""

from __future__ import annotations

import copy
import math
import statistics
import time
from typing import Any

import lightning.pytorch as pl
import torch

from semivox.config import TrainConfig
from semivox.engine.host import make_trainer, quiet
from semivox.engine.module import MakeLoaders, TrainingModule
from semivox.engine.precision import resolve_precision
from semivox.errors import UserError
from semivox.hardware import resolve_device
from semivox.methods.base import Method

SMALLEST = 50
_WARM_UP = 2


def probe(
    method: Method, make_loaders: MakeLoaders, config: TrainConfig, *, steps: int = 8, limit_s: float = 30.0
) -> float:
    """Return the median time of a training step in seconds, loading included.

    Takes two steps to warm up and then `steps` more on a copy of the method, in the middle of the run, where
    the terms that a method switches on after a while are on. The method and torch's generators stay as they
    were.

    Args:
        method: built, with its initial weights.
        make_loaders: as for `fit`.
        config: settings of the run.
        steps: steps to time.
        limit_s: stop earlier when this time is over, but time two steps at least.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    timer = _StepTimer(device, steps, limit_s)
    module = TrainingModule(copy.deepcopy(method).train(), make_loaders, config, start=config.iterations // 2)
    generators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(generators), quiet():
        make_trainer(device, precision, [timer], batches=_WARM_UP + steps).fit(module)
    return timer.median()


class _StepTimer(pl.Callback):
    """Notes the time after each step, with the device idle."""

    def __init__(self, device: torch.device, steps: int, limit_s: float) -> None:
        self._device, self._steps, self._limit_s = device, steps, limit_s
        self._times: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._times.append(time.perf_counter())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._times.append(time.perf_counter())
        over = self._times[-1] - self._times[0] > self._limit_s
        trainer.should_stop = over and batch_idx + 1 >= _WARM_UP + 2

    def median(self) -> float:
        """Median step; a run too short to warm up counts all its steps."""
        steps = [after - before for before, after in zip(self._times, self._times[1:], strict=False)]
        return statistics.median(steps[_WARM_UP:] or steps)


def iterations_for(
    budget_s: float,
    step_s: float,
    *,
    validation_s: float = 0.0,
    validations: int = 10,
    overhead_s: float = 0.0,
) -> int:
    """Return the largest number of iterations that fits into `budget_s`.

    Args:
        budget_s: wall-clock time of the run.
        step_s: time of one step, see `probe`.
        validation_s: time of one validation.
        validations: how many there are in a run.
        overhead_s: everything that happens once: start, last checkpoint, test.

    Raises:
        UserError: fewer than 50 iterations would fit.
    """
    fixed_s = validation_s * validations + overhead_s
    iterations = math.floor((budget_s - fixed_s) / step_s + 1e-9)
    if iterations < SMALLEST:
        raise UserError(
            "The budget is too small",
            found=f"{budget_s:.0f} s: one step takes {step_s:.3g} s, validation and start-up {fixed_s:.0f} s",
            expected=f"at least {math.ceil(SMALLEST * step_s + fixed_s)} s, enough for {SMALLEST} iterations",
            do="a larger budget, a smaller patch (plan.patch) or network (net.width)",
        )
    return iterations
