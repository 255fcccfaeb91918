"""The second optimiser of an adversarial method: its steps, its place in log and checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from engine_toy import Patches, Toy, loaders_for, make_toy, score, settings, table

from semivox.config import TrainConfig
from semivox.methods.base import Batch, Step
from semivox.training.checkpoints import last_path, load
from semivox.training.loop import fit


def run(toy: Toy, config: TrainConfig, folder: Path) -> Toy:
    fit(toy, loaders_for(config), config, folder, validate=score)
    return toy


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
    np.testing.assert_allclose(log["loss"], log[["supervised", "consistency", "fool"]].sum(axis=1), rtol=1e-5)


def test_checkpoint_keeps_the_optimisers_apart(tmp_path: Path) -> None:
    toy = run(make_toy(critic=True), settings(iterations=2), tmp_path / "with")
    checkpoint = load(last_path(tmp_path / "with"))
    assert len(checkpoint.momentum) == len(list(toy.parameters())) - 2
    run(make_toy(), settings(iterations=2), tmp_path / "without")
    assert load(last_path(tmp_path / "without")).critic == {}
