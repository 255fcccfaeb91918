"""How many iterations fit into a time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from engine_toy import loaders_for, make_toy, settings

from semivox.config import load_config
from semivox.errors import UserError
from semivox.methods.base import Method
from semivox.methods.cost import without_memory
from semivox.nets import NetFactory
from semivox.preprocessing.plan import Plan
from semivox.training.estimate import Costs, iterations_for, probe, windows
from semivox.training.logs import due, interval


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes only where something sleeps."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def test_iterations_fill_the_budget() -> None:
    hundred = settings(budget_s=100.0, validate_every=None, checkpoint_every=None)
    assert iterations_for(hundred, Costs(0.1)) == 1000
    assert iterations_for(hundred, Costs(0.3)) == 333
    assert iterations_for(hundred, Costs(0.1, validation_s=2.0), overhead_s=5) == 750
    assert iterations_for(hundred, Costs(0.1, checkpoint_s=0.5)) == 900
    # With validations the best weights are saved, too, after every second of them.
    assert iterations_for(hundred, Costs(0.1, 2.0, 0.5)) == 675
    assert iterations_for(settings(budget_s=5.0), Costs(0.1)) == 50


def test_events_at_fixed_intervals_are_part_of_a_step() -> None:
    often = settings(budget_s=100.0, validate_every=20, checkpoint_every=50)
    # 0.1 s a step, 2 s / 20 for validation, 0.5 s / 50 for checkpoints and 0.25 s / 20 for the best weights.
    assert iterations_for(often, Costs(0.1, 2.0, 0.5)) == int(100 / (0.1 + 0.1 + 0.01 + 0.0125))


def test_a_budget_too_small_names_the_smallest() -> None:
    costs = Costs(0.5, validation_s=1.0)
    small = {"validate_every": None, "checkpoint_every": None}
    with pytest.raises(UserError) as error:
        iterations_for(settings(budget_s=30.0, **small), costs, overhead_s=5.5)
    assert "41 s" in str(error.value.expected)  # 25 + 10 + 5.5
    assert iterations_for(settings(budget_s=41.0, **small), costs, overhead_s=5.5) >= 50
    with pytest.raises(UserError):
        iterations_for(settings(budget_s=40.0, **small), costs, overhead_s=5.5)


@pytest.mark.parametrize("total", [1, 7, 55, 59, 100, 6001])
def test_events_happen_at_most_so_often_and_at_the_end(total: int) -> None:
    at = [done for done in range(1, total + 1) if due(done, interval(None, total, 10), total)]
    assert len(at) <= 10 and at[-1] == total


@pytest.mark.parametrize("critic", [False, True])
def test_probe_measures_a_step_and_changes_nothing(critic: bool) -> None:
    toy, config = make_toy(critic=critic), settings(iterations=40, budget_s=100.0)
    toy.eval()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    state = torch.get_rng_state()
    costs = probe(toy, loaders_for(config, slow_s=0.02), config, steps=5)
    assert costs.step_s == pytest.approx(0.04)  # two streams of 0.02 s each
    assert costs[1:] == (0, 0)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in toy.state_dict().items())
    assert not toy.training


@pytest.mark.parametrize("steps", [5, 10])
def test_probe_looks_at_the_whole_run(steps: int) -> None:
    """Its steps are spread: of every equal part of the run there is one, also among the first few."""
    toy, config, seen = make_toy(), settings(iterations=1000), []
    toy.hook = lambda labeled, unlabeled, step: seen.append(step.iteration)
    probe(toy, loaders_for(config), config, steps=steps)
    assert seen[:3] == [500, 500, 500] and len(seen) == 2 + steps
    assert {place // 200 for place in seen[2:]} == set(range(5))


def test_terms_that_are_on_for_a_part_of_the_run_count_in_proportion() -> None:
    toy, config = make_toy(), settings(iterations=1000)
    toy.hook = lambda labeled, unlabeled, step: time.sleep(0.03 if step.iteration < 400 else 0.06)
    step_s = probe(toy, loaders_for(config), config, steps=10).step_s
    assert step_s == pytest.approx(0.048, rel=0.1)
    toy.hook = lambda labeled, unlabeled, step: time.sleep(0.03 if step.iteration < 600 else 0.06)
    assert probe(toy, loaders_for(config), config, steps=10).step_s == pytest.approx(0.042, rel=0.1)


def test_a_hiccup_counts_little_and_the_warm_up_nothing() -> None:
    toy, config = make_toy(), settings(iterations=40)
    waits = iter([0.9, 0.9, 0.05, 0.05, 2.0, 0.05, 0.05])
    toy.hook = lambda labeled, unlabeled, step: time.sleep(next(waits))
    step_s = probe(toy, loaders_for(config), config, steps=5).step_s
    assert step_s == pytest.approx(0.07)  # it counts as three steps; the mean with all of it would be 0.44


def test_slow_probe_stops_early() -> None:
    toy, config, count = make_toy(), settings(iterations=40), []
    toy.hook = lambda labeled, unlabeled, step: (count.append(1), time.sleep(0.05))
    probe(toy, loaders_for(config), config, steps=15, limit_s=0.01)
    assert len(count) == 4


def test_validation_is_timed_as_training_does_it(tmp_path: Path) -> None:
    """In evaluation mode, without gradients, under autocast; and a checkpoint is written and deleted."""
    toy, config = make_toy(), settings(iterations=40, precision="bf16")
    seen = []

    def validate(method: Method, device: torch.device, done: int) -> dict[str, float]:
        values = method.predict(torch.zeros(1, 1, 6, 6, 6, device=device))
        seen.append((method.training, values.requires_grad, torch.is_autocast_enabled("cpu")))
        time.sleep(0.3)
        return {"dice": 0.5}

    costs = probe(toy, loaders_for(config), config, steps=2, validate=validate, folder=tmp_path / "run")
    assert seen == [(False, False, True)]
    assert costs.validation_s == pytest.approx(0.3)
    assert costs.step_s == 0
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_probe_of_a_run_of_one_step() -> None:
    config = settings(iterations=1)
    assert probe(make_toy(), loaders_for(config, slow_s=0.02), config).step_s == pytest.approx(0.04)


def test_windows_are_those_that_the_networks_take() -> None:
    """A scan of 36x50x36 is one pass of 48x64x48 voxels, or of 64x64x64 where sides are multiples of 32."""
    median = {"shape": {"median": [36, 50, 36]}, "spacing_mm": {"median": [1.0] * 3}}
    plan = Plan(
        dataset="D", channels=("MR",), class_names=("background", "x"), class_values=(0, 1), crop="none",
        patch=(40, 48, 40), spacing_mm=(1.0, 1.0, 1.0), normalisation=("none",), fingerprint=median,
        strides=((2, 2, 2),) * 3, intensity=(dict.fromkeys(("mean", "std", "p005", "p995"), 0.0),),
    )  # fmt: skip
    config = load_config(predict={"window": "auto"}, train={"device": "cpu"})
    deep = {"channels": (2,) * 6, "strides": (2,) * 5, "norm": "batch"}
    coarse = NetFactory(1, 2, name="monai:UNet", options=deep)
    small = without_memory("supervised", {}, NetFactory(1, 2, width=2))
    large = without_memory("supervised", {}, coarse)
    assert windows(config, plan, small) == pytest.approx(48 * 64 * 48 / 48**3)
    assert windows(config, plan, large) == 1.0
