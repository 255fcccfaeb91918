"""A tiny method on volumes in memory; run as a script it trains, to be killed or in two processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from semivox.config import TrainConfig
from semivox.losses.schedules import Stage
from semivox.methods.base import Batch, Method, Step, fixed
from semivox.training.loop import MakeLoaders, fit

SIDE = 6


class Toy(Method):
    """Cross-entropy, and consistency under noise of the step; dropout, batch norm and an EMA buffer.

    With a critic: `judge` tells labeled from unlabeled patches; the term that fools it leaves it gradients.
    """

    class Config(Method.Config):
        width: int = 4
        dropout: float = 0.3
        noise: float = 0.1
        poison: int | None = None  # iteration (from 1) whose consistency becomes infinite
        late: int | None = None  # iteration (from 0) at which `late_head` gets its first gradient
        critic: bool = False

    config: Config

    def build(self, net: Any = None) -> None:
        width = self.config.width
        self.first, self.norm = nn.Conv3d(1, width, 3, padding=1), nn.BatchNorm3d(width)
        self.drop, self.last = nn.Dropout3d(self.config.dropout), nn.Conv3d(width, 2, 1)
        self.late_head = nn.Conv3d(width, 2, 1)
        self.judge = nn.Linear(2, 2) if self.config.critic else None
        self.register_buffer("average", torch.zeros_like(self.last.weight))
        self.hook: Callable[[Batch, Batch, Step], None] = lambda labeled, unlabeled, step: None

    def features(self, image: Tensor) -> Tensor:
        return self.drop(torch.relu(self.norm(self.first(image))))

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        self.hook(labeled, unlabeled, step)
        features = self.features(labeled.image) if len(labeled.image) else None
        terms = {}
        if features is not None:
            assert labeled.label is not None
            terms["supervised"] = nn.functional.cross_entropy(self.last(features).float(), labeled.label)
            if self.config.late is not None:
                weight = float(step.iteration >= self.config.late)
                late = nn.functional.cross_entropy(self.late_head(features).float(), labeled.label)
                terms["late"] = late if weight else late.detach()
        if len(unlabeled.image):
            image = unlabeled.image
            noise = torch.randn(image.shape, generator=step.generator, device=image.device)
            plain = self.last(self.features(image))
            gap = plain - self.last(self.features(image + self.config.noise * noise))
            terms["consistency"] = 0.1 * gap.float().square().mean()
            if step.iteration + 1 == self.config.poison:
                terms["consistency"] = terms["consistency"] / 0
            if self.judge is not None:
                terms["fool"] = self.verdict(image, 1)
        step.note("ramp", step.fraction)
        return terms

    def verdict(self, image: Tensor, target: int) -> Tensor:
        assert self.judge is not None
        logits = self.judge(self.last(self.features(image)).float().mean(dim=(2, 3, 4)))
        return nn.functional.cross_entropy(logits, torch.full((len(image),), target, device=image.device))

    def critic_parameters(self) -> list[dict[str, Any]]:
        if self.judge is None:
            return []
        return [{"params": list(self.judge.parameters()), "lr": 0.05, "betas": (0.9, 0.99)}]

    def critic_losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        with fixed(self.norm):
            return {"real": self.verdict(labeled.image, 1), "fake": self.verdict(unlabeled.image, 0)}

    def after_step(self, step: Step) -> None:
        self.average.mul_(0.9).add_(self.last.weight, alpha=0.1)

    def predict(self, image: Tensor) -> Tensor:
        return torch.softmax(self.last(self.features(image)).float(), dim=1)


def make_toy(seed: int = 0, **options: Any) -> Toy:
    """Build a toy with seeded initial weights."""
    torch.manual_seed(seed)
    toy = Toy(Toy.Config(**options))
    toy.build()
    return toy


class Patches(Dataset[dict[str, Any]]):
    """Whole batches as a function of (seed, stream, iteration)."""

    def __init__(self, seed: int, labeled: bool, start: int, stop: int, slow_s: float) -> None:
        self.seed, self.labeled, self.start, self.stop, self.slow_s = seed, labeled, start, stop, slow_s
        self.part = slice(None)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(self.slow_s)
        random = np.random.default_rng((self.seed, self.labeled, self.start + index))
        image = torch.from_numpy(random.normal(size=(2, 1, SIDE, SIDE, SIDE)).astype(np.float32))
        image = image[self.part]
        batch: dict[str, Any] = {"image": image, "case": ["a", "b"]}
        if self.labeled:
            batch["label"] = (image[:, 0] > 0.5).long()
        return batch


def loaders_for(
    config: TrainConfig,
    *,
    streams: tuple[str, ...] = ("labeled", "unlabeled"),
    slow_s: float = 0.0,
    workers: int = 0,
) -> MakeLoaders:
    """`make_loaders` of `fit` for the toy data; several ranks share the two patches of a batch."""

    def make(stage: Stage, start: int, rank: int, world: int) -> dict[str, DataLoader[Any]]:
        loaders = {}
        for name in streams:
            stop = min(stage.stop, config.iterations)
            patches = Patches(config.seed, name == "labeled", start, stop, slow_s)
            patches.part = slice(2 * rank // world, 2 * (rank + 1) // world)
            loaders[name] = DataLoader(patches, batch_size=None, num_workers=workers)
        return loaders

    return make


def score(method: Method, device: torch.device, done: int) -> dict[str, float]:
    """A validation that depends on the weights and draws random numbers, as a careless one would."""
    assert not method.training and not torch.is_grad_enabled()
    torch.rand(3)
    image = torch.linspace(-1, 1, SIDE**3).reshape(1, 1, SIDE, SIDE, SIDE).to(device)
    return {"dice": float(method.predict(image)[:, 1].mean()), "n": 1.0}


def settings(**changes: Any) -> TrainConfig:
    """Short run, everything logged and checkpointed at odd times."""
    values: dict[str, Any] = {"iterations": 40, "log_every": 2, "validate_every": 7, "checkpoint_every": 10}
    return TrainConfig(**(values | {"device": "cpu", "precision": "32"} | changes))


def table(folder: Path) -> pd.DataFrame:
    """What was logged, without the times."""
    return pd.read_csv(folder / "logs" / "metrics.csv").drop(columns="seconds")


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    """Bit for bit."""
    for name, value in b.state_dict().items():
        assert torch.equal(a.state_dict()[name], value), name


def stop_at(toy: Toy, iteration: int | None, error: type[BaseException] = KeyboardInterrupt) -> Toy:
    """Make the toy raise an error inside step `iteration` (from 0)."""

    def hook(labeled: Batch, unlabeled: Batch, step: Step) -> None:
        if step.iteration == iteration:
            raise error

    toy.hook = hook
    return toy


def kill_run(folder: Path, slow_s: float = 0, workers: int = 0) -> Toy:
    """The run of the tests that end one."""
    torch.set_num_threads(1)
    toy, config = make_toy(), settings()
    fit(toy, loaders_for(config, slow_s=slow_s, workers=workers), config, folder, validate=score)
    return toy


def shared_run(folder: Path, processes: int) -> Toy:
    """A run whose result does not depend on how many processes share the patches of a step."""
    torch.set_num_threads(1)
    toy, config = make_toy(dropout=0.0, noise=0.0), settings(iterations=8, validate_every=None)
    toy.norm = torch.nn.GroupNorm(1, 4)  # batch statistics are those of a rank's own patches
    fit(toy, loaders_for(config), config, folder, processes=processes)
    return toy


if __name__ == "__main__":
    task, folder, *numbers = sys.argv[1:]
    if task == "kill":
        try:
            kill_run(Path(folder), slow_s=float(numbers[0]), workers=int(numbers[1]))
        except KeyboardInterrupt as error:
            sys.exit(type(error).__name__)
    else:
        toy = shared_run(Path(folder), processes=2)
        torch.save(toy.state_dict(), Path(folder) / f"rank{os.environ['LOCAL_RANK']}.pt")
