"""How many iterations fit into a time."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from engine_toy import loaders_for, make_toy, settings

from semivox.engine.budget import iterations_for, probe
from semivox.engine.callbacks import due, interval
from semivox.errors import UserError


def test_iterations_fill_the_budget() -> None:
    assert iterations_for(100, 0.1) == 1000
    assert iterations_for(100, 0.3) == 333
    assert iterations_for(100, 0.1, validation_s=2, validations=10, overhead_s=5) == 750
    assert iterations_for(5, 0.1) == 50


def test_a_budget_too_small_names_the_smallest() -> None:
    with pytest.raises(UserError) as error:
        iterations_for(30, 0.5, validation_s=1.0, validations=10, overhead_s=5.5)
    assert "41 s" in str(error.value.expected)  # 25 + 10 + 5.5
    assert iterations_for(41, 0.5, validation_s=1.0, validations=10, overhead_s=5.5) >= 50
    with pytest.raises(UserError):
        iterations_for(40, 0.5, validation_s=1.0, validations=10, overhead_s=5.5)


@pytest.mark.parametrize("total", [1, 7, 55, 59, 100, 6001])
def test_events_happen_at_most_so_often_and_at_the_end(total: int) -> None:
    at = [done for done in range(1, total + 1) if due(done, interval(None, total, 10), total)]
    assert len(at) <= 10 and at[-1] == total


def test_probe_measures_a_step_and_changes_nothing() -> None:
    toy, config = make_toy(), settings(iterations=40, budget_s=100.0)
    toy.eval()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    seen: list[int] = []
    toy.hook = lambda labeled, unlabeled, step: seen.append(step.iteration)
    state = torch.get_rng_state()
    step_s = probe(toy, loaders_for(config, slow_s=0.02), config, steps=5)
    assert 0.04 < step_s < 0.4  # two streams of 0.02 s each
    assert seen == [20, 21, 22, 23, 24, 25, 26]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in toy.state_dict().items())
    assert not toy.training


def test_probe_takes_the_median_after_the_warm_up() -> None:
    toy, config = make_toy(), settings(iterations=40)
    waits = iter([0.5, 0.3, 0.02, 0.02, 0.4, 0.02, 0.02])
    toy.hook = lambda labeled, unlabeled, step: time.sleep(next(waits))
    step_s = probe(toy, loaders_for(config), config, steps=5)
    assert 0.02 < step_s < 0.2 < statistics.mean([0.02, 0.02, 0.4, 0.02, 0.02]) * 3


def test_slow_probe_stops_early() -> None:
    toy, config, count = make_toy(), settings(iterations=40), []
    toy.hook = lambda labeled, unlabeled, step: (count.append(1), time.sleep(0.05))
    probe(toy, loaders_for(config), config, steps=15, limit_s=0.01)
    assert len(count) == 4


def test_probe_of_a_run_of_one_step() -> None:
    config = settings(iterations=1)
    assert probe(make_toy(), loaders_for(config), config) > 0
