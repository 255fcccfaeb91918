"""Ramps and learning rates."""

from __future__ import annotations

import math

import pytest

from semivox.losses.schedules import lr_factor, sigmoid_rampup


@pytest.mark.parametrize(
    ("fraction", "value"),
    [
        (0, 0.006737947),
        (1 / 40, 0.008625),
        (0.25, 0.060055),
        (0.5, 0.286505),
        (0.75, 0.731616),
        (39 / 40, 0.996880),
        (1, 1.0),
        (1.7, 1.0),
        (-0.1, 0.006737947),
    ],
)
def test_sigmoid_rampup(fraction: float, value: float) -> None:
    assert sigmoid_rampup(fraction) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("percent", [100, 60, 75])
@pytest.mark.parametrize("total", [6000, 40, 1000, 6001, 10000])
def test_sigmoid_rampup_in_steps(total: int, percent: int) -> None:
    """As `iteration // 150` of 6000 with a ramp of 40: each of 40 values is held for a 40th of the ramp."""
    for iteration in range(total):
        steps = min(40, 40 * 100 * iteration // (percent * total))
        found = sigmoid_rampup(iteration / total / (percent / 100), 40)
        assert found == pytest.approx(math.exp(-5 * (1 - steps / 40) ** 2), rel=1e-12), iteration
    assert sigmoid_rampup(1.0, 40) == sigmoid_rampup(2.0, 40) == 1


@pytest.mark.parametrize(
    ("iteration", "factor"), [(0, 1), (2499, 1), (2500, 0.1), (4999, 0.1), (5000, 0.01), (6000, 0.01)]
)
def test_step_schedule_at_the_published_iterations(iteration: int, factor: float) -> None:
    assert lr_factor("step", iteration, 6000) == pytest.approx(factor)


@pytest.mark.parametrize("total", [1, 7, 600, 1000, 20000])
def test_step_schedule_of_short_runs_decays_twice(total: int) -> None:
    factors = [lr_factor("step", iteration, total) for iteration in range(total + 1)]
    assert factors[0] == 1 and factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0.01)


def test_poly_and_constant() -> None:
    assert lr_factor("step", 49, 100, 25) == pytest.approx(0.1)
    assert lr_factor("step", 50, 100, 25) == pytest.approx(0.01)
    assert lr_factor("poly", 25, 100) == pytest.approx(0.75**0.9)
    assert (
        lr_factor("poly", 0, 100) == 1
        and lr_factor("poly", 100, 100) == 0
        and lr_factor("poly", 110, 100) == 0
    )
    assert lr_factor("constant", 90, 100) == 1
