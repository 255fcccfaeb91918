"""Stages of a run, averaged weights, the optimisers: on the toy, against plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from engine_toy import (
    Patches,
    Toy,
    assert_same_weights,
    loaders_for,
    make_toy,
    score,
    settings,
    stop_at,
    table,
)
from torch.nn.utils import clip_grad_norm_

from semivox.config import TrainConfig
from semivox.losses.schedules import Stage, make_stages
from semivox.methods.base import Batch, Method, Step
from semivox.training.checkpoints import best_path, last_path, load, load_weights
from semivox.training.fabric import make_fabric
from semivox.training.loop import fit
from semivox.training.step import Stepper


class Staged(Toy):
    """Two stages: two fifths of the run, then the rest."""

    def stages(self, iterations: int) -> tuple[float, ...]:
        return (0.4, 0.6)


def make_staged(**options: Any) -> Staged:
    torch.manual_seed(0)
    toy = Staged(Staged.Config(**options))
    toy.build()
    return toy


@pytest.mark.parametrize(
    ("shares", "iterations", "bounds"),
    [
        ((1.0,), 7, [(0, 7)]),
        ((0.65, 0.35), 100, [(0, 65), (65, 100)]),
        ((0.65, 0.175, 0.175), 40, [(0, 26), (26, 33), (33, 40)]),
        ((0.65, 0.35), 2, [(0, 1), (1, 2)]),
        ((0.65, 0.35), 1, [(0, 1)]),
    ],
)
def test_stages_divide_the_iterations(
    shares: tuple[float, ...], iterations: int, bounds: list[tuple[int, int]]
) -> None:
    stages = make_stages(shares, iterations)
    assert [(stage.start, stage.stop) for stage in stages] == bounds
    assert [stage.index for stage in stages] == list(range(len(bounds)))


def plain_loop(toy: Toy, config: TrainConfig, bounds: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """What the engine does, in the plainest words; labeled patches alone, no noise. Returns the averages."""
    patches = Patches(config.seed, True, 0, config.iterations, 0.0)
    mean = {name: value.clone() for name, value in toy.state_dict().items()}
    parameters = {name for name, _ in toy.named_parameters()}
    for start, stop in bounds:
        toy.load_state_dict(mean if start else toy.state_dict())
        optimizer = torch.optim.AdamW(toy.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        for iteration in range(start, stop):
            warm = min(1.0, (iteration - start + 1) / config.warmup)
            factor = (1 - (iteration - start) / (stop - start)) ** 0.9
            optimizer.param_groups[0]["lr"] = config.lr * warm * factor
            batch = patches[iteration]
            step = Step(iteration, config.iterations, torch.Generator())
            nothing = Batch(torch.zeros(0, 1, 6, 6, 6), None)
            terms = toy.losses(Batch(batch["image"], batch["label"]), nothing, step)
            optimizer.zero_grad()
            sum(terms.values()).backward()  # type: ignore[union-attr]
            assert config.clip is not None
            clip_grad_norm_(toy.parameters(), config.clip)
            optimizer.step()
            toy.after_step(step)
            decay = min(1 - 1 / (iteration - start + 1), config.average)
            for name, value in toy.state_dict().items():
                old = decay * mean[name] + (1 - decay) * value if name in parameters else value
                mean[name] = old.clone()
    return mean


def test_equals_a_plain_loop_of_two_stages(tmp_path: Path) -> None:
    """AdamW, warm-up, clipping and averages begin anew with each stage; the averages are the result."""
    config = settings(
        iterations=10, optimizer="adamw", lr=0.02, weight_decay=0.1, warmup=3, schedule="poly", clip=0.05,
        average=0.8, log_every=1, validate_every=None,
    )  # fmt: skip
    trained, expected = make_staged(dropout=0.0), make_staged(dropout=0.0)
    for toy in (trained, expected):  # behind a norm, gradients of a bias are rounding, which Adam enlarges
        toy.norm = torch.nn.Identity()  # type: ignore[assignment]
    fit(trained, loaders_for(config, streams=("labeled",)), config, tmp_path)
    means = plain_loop(expected, config, [(0, 4), (4, 10)])
    for name, value in means.items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(means["last.weight"], expected.last.weight, rtol=1e-3)
    rates = pd.read_csv(tmp_path / "logs" / "metrics.csv").set_index("iteration")["lr"]
    assert rates[1] == pytest.approx(0.02 / 3) and rates[4] == pytest.approx(0.02 * 0.25**0.9)
    assert rates[5] == pytest.approx(0.02 / 3) and rates[10] == pytest.approx(0.02 * (1 / 6) ** 0.9)


def test_the_rate_drops_at_shares_of_the_whole_run(tmp_path: Path) -> None:
    """Every 0.2 of 20 iterations from the start of each stage: 8 iterations, then 12."""
    config = settings(
        iterations=20, lr=1.0, schedule="step", step_every=0.2, log_every=1, validate_every=None
    )
    toy = make_staged(dropout=0.0)
    stepper = Stepper(make_fabric(torch.device("cpu"), "32-true"), toy, config)
    rates = [stepper.lr(iteration) for iteration in range(20)]
    assert rates == pytest.approx([1.0] * 4 + [0.1] * 4 + [1.0] * 4 + [0.1] * 4 + [0.01] * 4)
    stepper.config = config.model_copy(update={"iterations": 20, "step_every": None})
    assert [stepper.lr(iteration) for iteration in (3, 4, 8, 12, 13)] == pytest.approx([1, 0.1, 1, 1, 0.1])


def test_validated_and_best_weights_are_the_averages(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def validate(method: Method, device: torch.device, done: int) -> dict[str, float]:
        seen.append(method.last.weight.detach().clone())  # type: ignore[union-attr, operator]
        return {"dice": 1 - done / 100}

    config = settings(iterations=8, average=0.9, validate_every=4)
    toy = make_toy()
    fit(toy, loaders_for(config), config, tmp_path, validate=validate)
    last = load(last_path(tmp_path))
    assert torch.equal(seen[1], last.average["last.weight"]) and torch.equal(toy.last.weight, seen[1])
    assert not torch.equal(seen[1], last.weights["last.weight"])
    best = make_toy(seed=3)
    assert load_weights(best_path(tmp_path), best).iteration == 4
    assert torch.equal(best.last.weight, seen[0])


class CrashError(Exception):
    """Stands for a kill: nothing is saved after it."""


ADAM = {"optimizer": "adam", "lr": 0.01, "average": 0.9, "clip": 1.0, "warmup": 2, "validate_every": 4}


@pytest.mark.parametrize(
    ("optimizer", "where", "critic"),
    [
        ("adamw", "stage 1", False),
        ("sgd", "boundary", False),
        ("adamw", "while teaching", False),
        ("sgd", "stage 2", True),
        ("adam", "stage 2", False),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, optimizer: str, where: str, critic: bool
) -> None:
    config = settings(iterations=15, checkpoint_every=4, **(ADAM | {"optimizer": optimizer}))
    kill, left = {"stage 1": (5, 4), "boundary": (6, 6), "stage 2": (11, 8)}.get(where, (None, 6))
    taught: list[tuple[int, torch.Tensor]] = []

    def teach(method: Method, device: torch.device, stage: Stage) -> None:
        assert stage == Stage(1, 6, 15) and not method.training
        taught.append((len(taught), method.last.weight.detach().clone()))  # type: ignore[union-attr, operator]
        if where == "while teaching" and len(taught) == 1:
            raise CrashError

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first, resumed, straight = (make_staged(critic=critic) for _ in range(3))
    stop_at(first, kill, CrashError)
    with pytest.raises(CrashError):
        fit(first, loaders_for(config), config, killed, validate=score, teach=teach)
    assert load(last_path(killed)).iteration == left
    fit(resumed, loaders_for(config), config, killed, validate=score, teach=teach)
    count = len(taught)
    fit(straight, loaders_for(config), config, whole, validate=score, teach=teach)
    assert len(taught) == count + 1
    assert torch.equal(taught[0][1], taught[-1][1]), "the averages at the end of the first stage teach"
    assert_same_weights(resumed, straight)
    pd.testing.assert_frame_equal(table(killed), table(whole), check_exact=True)
    judges = [load(last_path(folder)).critic.get("state", {}) for folder in (killed, whole)]
    assert len(judges[1]) == 2 * critic
    for index, values in judges[1].items():
        assert values["step"] == 15
        assert all(torch.equal(judges[0][index][name], value) for name, value in values.items())
