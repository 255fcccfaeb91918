"""How many iterations fit into a given time."""

from __future__ import annotations

import copy
import math
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.hardware import resolve_device
from semivox.methods.base import Method, Step
from semivox.training import checkpoints
from semivox.training.callbacks import Validate, evaluating
from semivox.training.failures import explained
from semivox.training.host import make_trainer, quiet
from semivox.training.module import MakeLoaders, TrainingModule
from semivox.training.precision import resolve_precision

SMALLEST = 50
_WARM_UP = 2
_GOLDEN = (math.sqrt(5) - 1) / 2
_HICCUP = 3.0  # a step that took longer than so many medians counts as so long


class Costs(NamedTuple):
    """Seconds of what a run consists of; 0 for what was not measured."""

    step_s: float
    validation_s: float = 0.0
    checkpoint_s: float = 0.0


def probe(
    method: Method,
    make_loaders: MakeLoaders,
    config: TrainConfig,
    *,
    steps: int = 8,
    limit_s: float = 30.0,
    validate: Validate | None = None,
    folder: Path | None = None,
) -> Costs:
    """Measure a training step, loading included, and what else a run does, on its device in its precision.

    Takes two steps to warm up and then `steps` more on a copy of the method. They are spread evenly over the
    run: a method may switch on some of its terms after a while. The method and torch's generators stay as
    they were.

    Args:
        method: built, with its initial weights.
        make_loaders: as for `fit`.
        config: settings of the run.
        steps: steps to time.
        limit_s: stop earlier when this time is over, but time two steps at least.
        validate: as for `fit`; is called once.
        folder: the run folder, where a checkpoint is written and deleted.

    Returns:
        The mean time of a step, in which a single hiccup counts little, and of the others if asked for.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    meter = _Meter(device, limit_s, validate, folder)
    module = _Spread(copy.deepcopy(method).train(), make_loaders, config, steps)
    generators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(generators), quiet(), explained():
        make_trainer(device, precision, [meter], batches=_WARM_UP + steps).fit(module)
    return meter.costs()


class _Spread(TrainingModule):
    """Takes few steps as if they stood all over the run, in an order whose beginnings are spread, too."""

    def __init__(self, method: Method, make_loaders: MakeLoaders, config: TrainConfig, steps: int) -> None:
        super().__init__(method, make_loaders, config)
        places = [0.5] * _WARM_UP + [(0.5 + _GOLDEN * index) % 1 for index in range(steps)]
        self._at = [int(place * config.iterations) for place in places]

    def begin(self, iteration: int) -> Step:
        return super().begin(self._at[iteration])


class _Meter(pl.Callback):
    """Notes the time after each step, with the device idle; at the end times the rest."""

    def __init__(
        self, device: torch.device, limit_s: float, validate: Validate | None, folder: Path | None
    ) -> None:
        self._device, self._limit_s, self._validate, self._folder = device, limit_s, validate, folder
        self._times: list[float] = []
        self._validation_s = self._checkpoint_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._times.append(self._now())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._times.append(self._now())
        over = self._times[-1] - self._times[0] > self._limit_s
        trainer.should_stop = over and batch_idx + 1 >= _WARM_UP + 2

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if self._validate is not None:
            started = self._now()
            with evaluating(pl_module.method), trainer.precision_plugin.forward_context():
                done = pl_module.config.iterations
                self._validate(pl_module.method, pl_module.device, done)
            self._validation_s = self._now() - started
        if self._folder is not None:
            started, path = self._now(), checkpoints.last_path(self._folder).with_name("probe.ckpt")
            weights, momentum = dict(pl_module.method.state_dict()), pl_module.momentum()
            try:
                checkpoints.save(path, checkpoints.Checkpoint(0, weights, momentum=momentum))
            finally:
                path.unlink(missing_ok=True)
            self._checkpoint_s = self._now() - started

    def costs(self) -> Costs:
        """A run too short to warm up counts all its steps."""
        steps = [after - before for before, after in zip(self._times, self._times[1:], strict=False)]
        steps = steps[_WARM_UP:] or steps
        most = _HICCUP * statistics.median(steps)
        mean = statistics.fmean(min(step, most) for step in steps)
        return Costs(mean, self._validation_s, self._checkpoint_s)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def iterations_for(
    settings: TrainConfig, costs: Costs, *, validations: int = 10, saves: int = 20, overhead_s: float = 0.0
) -> int:
    """Return the largest number of iterations that fits into `settings.budget_s`.

    Args:
        settings: of the run; `validate_every` and `checkpoint_every` go before the numbers below.
        costs: from `probe`.
        validations: how many there are in a run.
        saves: how often the state is saved; the best weights are taken to be after half the validations.
        overhead_s: everything that happens once: start, probe, end.

    Raises:
        UserError: fewer than 50 iterations would fit.
    """
    assert settings.budget_s is not None
    budget_s, fixed_s, step_s = settings.budget_s, overhead_s, costs.step_s
    validated_s = costs.validation_s + (0.5 * costs.checkpoint_s if costs.validation_s else 0.0)
    for each_s, times, every in (
        (validated_s, validations, settings.validate_every),
        (costs.checkpoint_s, saves, settings.checkpoint_every),
    ):
        fixed_s += each_s * times if every is None else 0.0
        step_s += each_s / every if every is not None else 0.0
    iterations = math.floor((budget_s - fixed_s) / step_s + 1e-9)
    if iterations < SMALLEST:
        raise UserError(
            "The budget is too small",
            found=f"{budget_s:.0f} s: one step takes {step_s:.3g} s, validation and start-up {fixed_s:.0f} s",
            expected=f"at least {math.ceil(SMALLEST * step_s + fixed_s)} s, enough for {SMALLEST} iterations",
            do="a larger budget, a smaller patch (plan.patch) or network (net.width)",
        )
    return iterations
