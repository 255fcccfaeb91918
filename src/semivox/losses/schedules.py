"""Weights and learning rates as functions of the share of a run that is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, floor
from typing import Literal

STEP_EVERY = 2500 / 6000  # of a stage: the published decay after each 2500 of 6000 iterations


@dataclass(frozen=True)
class Stage:
    """A part of a run with a learning-rate schedule of its own; see `Method.stages`."""

    index: int
    start: int  # its first iteration
    stop: int  # the iteration after its last


def make_stages(shares: Sequence[float], iterations: int) -> list[Stage]:
    """Divide a run of so many iterations into stages of at least one iteration; a short run has fewer."""
    ends = [round(iterations * sum(shares[: index + 1]) / sum(shares)) for index in range(len(shares))]
    bounds = sorted({0, *ends[:-1], iterations})
    return [Stage(index, *pair) for index, pair in enumerate(pairwise(bounds))]


def _clipped(fraction: float) -> float:
    return min(max(fraction, 0.0), 1.0)


def sigmoid_rampup(fraction: float, steps: int | None = None) -> float:
    """Compute exp(-5 (1 - fraction)^2): 0.0067 at 0, 1 from `fraction` 1 on.

    Args:
        fraction: share of the ramp that is done, clipped to 0..1.
        steps: rise in so many steps, as published code does that counts `iteration // 150`; None: smoothly.

    Source: Laine and Aila, "Temporal ensembling", ICLR 2017.
    """
    done = _clipped(fraction)
    if steps is not None:
        done = floor(done * steps + 1e-9) / steps  # a step begins at its iteration, whatever the rounding
    return exp(-5.0 * (1.0 - done) ** 2)


def lr_factor(
    schedule: Literal["step", "poly", "constant"], done: float, length: float, every: float | None = None
) -> float:
    """Compute the factor of the initial learning rate; all in iterations of the stage.

    step: 0.1 for each `every` (None: `STEP_EVERY` of the length) that is done; poly: (1 - done / length)^0.9;
    constant: 1.
    """
    if schedule == "step":
        return float(0.1 ** floor(min(done, length) / (every or STEP_EVERY * length) + 1e-9))
    return float((1.0 - _clipped(done / length)) ** 0.9) if schedule == "poly" else 1.0
