"""The second optimiser of an adversarial method: its steps, its place in the log, its resume."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from engine_toy import Patches, Toy, loaders_for, make_toy, score, settings

from semivox.config import TrainConfig
from semivox.methods.base import Batch, Step
from semivox.training.checkpoints import last_path, load
from semivox.training.estimate import probe
from semivox.training.loop import fit


def run(toy: Toy, config: TrainConfig, folder: Path) -> Toy:
    fit(toy, loaders_for(config), config, folder, validate=score)
    return toy


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "logs" / "metrics.csv").drop(columns="seconds")


def test_equals_a_plain_loop(tmp_path: Path) -> None:
    """SGD on everything but the judge, then Adam on the judge, with no gradient left from the first."""
    config = settings(iterations=12, lr=0.1, schedule="constant", weight_decay=0.01)
    trained, expected = (make_toy(critic=True, dropout=0.0) for _ in range(2))
    seen: list[Step] = []
    for toy in (trained, expected):  # the noise of the step is not what is tested here
        toy.hook = lambda labeled, unlabeled, step: (seen.append(step), step.generator.manual_seed(0))
    run(trained, config, tmp_path)

    judge = list(expected.judge.parameters())  # type: ignore[union-attr]
    others = [p for p in expected.parameters() if not any(p is own for own in judge)]
    sgd = torch.optim.SGD(others, lr=0.1, momentum=0.9, weight_decay=0.01)
    adam = torch.optim.Adam(judge, lr=0.05, betas=(0.9, 0.99))
    streams = [Patches(config.seed, labeled, 0, 12, 0.0) for labeled in (True, False)]
    for iteration in range(12):
        first, second = (stream[iteration] for stream in streams)
        labeled, unlabeled = Batch(first["image"], first["label"]), Batch(second["image"], None)
        step = Step(iteration, 12, torch.Generator())
        sgd.zero_grad()
        torch.stack(list(expected.losses(labeled, unlabeled, step).values())).sum().backward()
        sgd.step()
        adam.zero_grad()
        torch.stack(list(expected.critic_losses(labeled, unlabeled, step).values())).sum().backward()
        adam.step()
        with torch.no_grad():
            expected.after_step(step)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_losses_of_the_critic_are_logged_but_not_added(tmp_path: Path) -> None:
    run(make_toy(critic=True), settings(iterations=4), tmp_path)
    log = table(tmp_path)
    assert log[["real", "fake", "fool"]].notna().all().all()
    torch.testing.assert_close(
        torch.tensor(log["loss"]),
        torch.tensor(log["supervised"] + log["consistency"] + log["fool"]),
        rtol=1e-5,
        atol=1e-6,
    )


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    stopped, whole, config = tmp_path / "stopped", tmp_path / "whole", settings()
    toy = make_toy(critic=True)

    def hook(labeled: Batch, unlabeled: Batch, step: Step) -> None:
        if step.iteration == 13:
            raise KeyboardInterrupt

    toy.hook = hook
    with pytest.raises(KeyboardInterrupt):
        run(toy, config, stopped)
    assert load(last_path(stopped)).iteration == 10
    resumed, straight = run(make_toy(critic=True), config, stopped), run(make_toy(critic=True), config, whole)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    pd.testing.assert_frame_equal(table(stopped), table(whole), check_exact=True)
    a, b = load(last_path(stopped)).critic["state"], load(last_path(whole)).critic["state"]
    assert list(a) == list(b) == [0, 1]
    for index, values in b.items():
        assert values["step"] == 40
        assert all(torch.equal(a[index][name], value) for name, value in values.items())


def test_checkpoint_keeps_the_optimisers_apart(tmp_path: Path) -> None:
    toy = run(make_toy(critic=True), settings(iterations=2), tmp_path / "with")
    checkpoint = load(last_path(tmp_path / "with"))
    assert len(checkpoint.momentum) == len(list(toy.parameters())) - 2
    run(make_toy(), settings(iterations=2), tmp_path / "without")
    assert load(last_path(tmp_path / "without")).critic == {}


def test_bf16_and_probe(tmp_path: Path) -> None:
    """The critic's step runs under autocast with float32 weights, and is part of the time of a step."""
    toy = make_toy(critic=True)
    kinds: list[torch.dtype] = []
    toy.last.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    run(toy, settings(iterations=2, precision="bf16", validate_every=9), tmp_path)
    assert set(kinds) == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in toy.parameters())
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    config = settings(iterations=20)
    assert probe(toy, loaders_for(config), config).step_s > 0
    assert all(torch.equal(before[name], value) for name, value in toy.state_dict().items())
