"""How long training takes: the one estimator of `--budget`, `benchmark --dry-run` and `info --machine`."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch

from semivox.config import Config, TrainConfig
from semivox.errors import UserError
from semivox.hardware import resolve_device
from semivox.inference.windows import room, tiling, window_starts
from semivox.losses.schedules import Stage, make_stages
from semivox.methods.base import Method
from semivox.methods.cost import patch_divisor
from semivox.preprocessing.plan import Plan
from semivox.training import checkpoints
from semivox.training.fabric import evaluating, make_fabric, quiet, resolve_precision
from semivox.training.failures import explained
from semivox.training.logs import SAVES, VALIDATIONS, Validate
from semivox.training.loop import MakeLoaders, stage_batches
from semivox.training.step import Stepper

SMALLEST = 50
FORWARD_SHARE = 1 / 3  # of a training step: one pass forward, two backward
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
    stage: Stage | None = None,
    validate: Validate | None = None,
    folder: Path | None = None,
) -> Costs:
    """Measure a training step, loading included, and what else a run does, on its device in its precision.

    Takes two steps to warm up and then `steps` more on a copy of the method. They are spread evenly over the
    run, also the first few of them: a method may switch on some of its terms after a while. The method and
    torch's generators stay as they were.

    Args:
        steps, limit_s: steps to time; fewer when this time is over, but two at least.
        stage: of the run to measure; None: the whole of it.
        validate: as for `fit`; is called once.
        folder: the run folder, where a checkpoint is written and deleted.

    Returns:
        The mean time of a step, in which a single hiccup counts little, and of the others if asked for.
    """
    device = resolve_device(config.device)
    fabric = make_fabric(device, resolve_precision(config.precision, device))
    part = stage or Stage(0, 0, config.iterations)
    places = [0.5] * _WARM_UP + [(0.5 + _GOLDEN * index) % 1 for index in range(steps)]
    with torch.random.fork_rng([device] if device.type == "cuda" else []), quiet(), explained():
        stepper = Stepper(fabric, copy.deepcopy(method).train(), config)
        times = [_now(device)]
        with closing(stage_batches(fabric, make_loaders, part, part.start)) as found:
            for place, (_, labeled, unlabeled) in zip(places, found, strict=False):
                stepper.step(part.start + int(place * (part.stop - part.start)), labeled, unlabeled)
                times.append(_now(device))
                if times[-1] - times[0] > limit_s and len(times) > _WARM_UP + 2:
                    break
        started = _now(device)
        if validate is not None:
            with evaluating(stepper.method, fabric):
                validate(stepper.method, device, config.iterations)
        validated = _now(device)
        if folder is not None:
            path = folder / ".probe.ckpt"  # where nothing is left of a run that is refused after this
            try:
                checkpoints.save(path, checkpoints.Checkpoint(0, **stepper.state()))
            finally:
                path.unlink(missing_ok=True)
        saved = _now(device)
    return Costs(
        _mean_step(times),
        validated - started if validate is not None else 0.0,
        saved - validated if folder is not None else 0.0,
    )


def _mean_step(times: Sequence[float]) -> float:
    """Average the steps between `times`; a run too short to warm up counts all of them."""
    steps = [after - before for before, after in pairwise(times)]
    steps = steps[_WARM_UP:] or steps
    most = _HICCUP * statistics.median(steps)
    return statistics.fmean(min(step, most) for step in steps)


def _now(device: torch.device) -> float:
    """Return the time at which the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def mean_costs(costs: Sequence[Costs], method: Method, iterations: int) -> Costs:
    """Average the step of a run of so many iterations over its stages."""
    stages = make_stages(method.stages(iterations), iterations)
    seconds = ((one.stop - one.start) * costs[min(one.index, len(costs) - 1)].step_s for one in stages)
    return costs[0]._replace(step_s=sum(seconds) / iterations)


def iterations_for(settings: TrainConfig, costs: Costs, *, overhead_s: float = 0.0) -> int:
    """Return the largest number of iterations that fits into `settings.budget_s`.

    `overhead_s` is everything that happens once: start, probe, end. The best weights are taken to be saved
    after half of the validations.

    Raises:
        UserError: fewer than 50 iterations would fit.
    """
    assert settings.budget_s is not None
    budget_s, fixed_s, step_s = settings.budget_s, overhead_s, costs.step_s
    validated_s = costs.validation_s + (0.5 * costs.checkpoint_s if costs.validation_s else 0.0)
    for each_s, times, every in (
        (validated_s, VALIDATIONS, settings.validate_every),
        (costs.checkpoint_s, SAVES, settings.checkpoint_every),
    ):
        fixed_s += each_s * times if every is None else 0.0
        step_s += each_s / every if every is not None else 0.0
    iterations = math.floor((budget_s - fixed_s) / step_s + 1e-9)
    if iterations < SMALLEST:
        found = f"{budget_s:.0f} s: one step takes {step_s:.3g} s, validation and start-up {fixed_s:.0f} s"
        wanted = f"at least {math.ceil(SMALLEST * step_s + fixed_s)} s, enough for {SMALLEST} iterations"
        do = "a larger budget, a smaller patch (plan.patch) or network (net.width)"
        raise UserError("The budget is too small", found, wanted, do)
    return iterations


def run_seconds(config: Config, case_s: float, step_s: float, *, val: int, test: int) -> float:
    """Estimate a run: training, validation and, afterwards, prediction; not start-up and scoring.

    A prediction takes `case_s`, a step `step_s`; there are `val` cases to validate on, and `test` to predict
    afterwards. A time budget is taken as it is.
    """
    train = config.train
    if train.budget_s is not None:
        return train.budget_s + case_s * test
    every = train.validate_every
    validations = VALIDATIONS if every is None else max(1, train.iterations // every)
    return step_s * train.iterations + case_s * (test + validations * val)


def case_seconds(config: Config, plan: Plan, method: Method, step_s: float, batch: int) -> float:
    """Estimate the prediction of a scan of median size where a step takes `step_s` for `batch` patches."""
    return FORWARD_SHARE * step_s / max(batch, 1) * windows(config, plan, method)


def windows(config: Config, plan: Plan, method: Method) -> float:
    """Count the sliding windows of a scan of median size; larger ones than the patch count as several."""
    plan = plan.fitted(patch_divisor(method))
    window, device = plan.patch, resolve_device(config.train.device)
    size, spacing = plan.fingerprint["shape"]["median"], plan.fingerprint["spacing_mm"]["median"]
    parts = zip(size, spacing, plan.spacing_mm, window, strict=True)
    shape = [max(round(side * before / after), patch) for side, before, after, patch in parts]
    divisor = patch_divisor(method, plan.divisor)
    seen, strides = tiling(shape, window, config.predict, room(method, device), divisor)
    axes = zip(shape, seen, strides, strict=True)
    count = prod(len(window_starts(max(side, patch), patch, stride)) for side, patch, stride in axes)
    return count * prod(seen) / prod(plan.patch)
