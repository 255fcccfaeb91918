"""Stand-ins for networks, and batches, for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from semivox.methods.base import Batch, PairMethod, Step
from semivox.methods.dual import Dual
from semivox.methods.heads import MultiDecoderMethod, SignedDistanceMethod
from semivox.nets.multi_decoder import Decoded

SHAPE = (4, 3, 2)


class Fixed(nn.Module):
    """A network whose features and logits are parameters of their own, for exact gradients."""

    def __init__(self, features: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.feature_map, self.logit_map = nn.Parameter(features), nn.Parameter(logits)

    def features(self, image: Tensor) -> Tensor:
        return self.feature_map

    def head(self, features: Tensor) -> Tensor:
        return self.logit_map

    def forward(self, image: Tensor) -> Tensor:
        return self.logit_map


def make_step(iteration: int = 0, total: int = 10, seed: int = 0) -> Step:
    return Step(iteration, total, torch.Generator().manual_seed(seed))


@pytest.fixture
def step() -> Callable[..., Step]:
    return make_step


@pytest.fixture
def fixed_pair() -> Callable[..., tuple[Any, Batch, Batch]]:
    """Build a `PairMethod` of two `Fixed` networks in float64, and its batches."""

    def make(
        kind: type[PairMethod],
        classes: int = 2,
        *,
        labeled: int = 2,
        unlabeled: int = 2,
        seed: int = 0,
        gain: float = 2.0,
        **options: object,
    ) -> tuple[Any, Batch, Batch]:
        generator = torch.Generator().manual_seed(seed)
        count = labeled + unlabeled

        def normal(channels: int) -> Tensor:
            return torch.randn(count, channels, *SHAPE, generator=generator, dtype=torch.float64)

        method: Any = kind(kind.Config.model_validate(options))
        common = normal(classes)  # both lean the same way, so that there is agreement as well as disagreement
        method.net_a = Fixed(normal(5), gain * (0.7 * common + 0.5 * normal(classes)))
        method.net_b = Fixed(normal(5), gain * (0.7 * common + 0.5 * normal(classes)))
        image = torch.zeros(count, 1, *SHAPE)
        label = torch.randint(0, classes, (labeled, *SHAPE), generator=generator)
        return method, Batch(image[:labeled], label), Batch(image[labeled:], None)

    return make


@pytest.fixture
def fixed_dual(
    fixed_pair: Callable[..., tuple[Any, Batch, Batch]],
) -> Callable[..., tuple[Dual, Batch, Batch]]:
    return partial(fixed_pair, Dual)


class FixedDecoders(nn.Module):
    """A multi-decoder network whose outputs are parameters of their own."""

    def __init__(self, features: list[Tensor], logits: list[Tensor]) -> None:
        super().__init__()
        self.feature_maps, self.logit_maps = nn.ParameterList(features), nn.ParameterList(logits)

    def forward(self, image: Tensor) -> list[Decoded]:
        return [Decoded(f, z) for f, z in zip(self.feature_maps, self.logit_maps, strict=True)]


def random_batches(
    classes: int, labeled: int, unlabeled: int, generator: torch.Generator
) -> tuple[Batch, Batch]:
    image = torch.zeros(labeled + unlabeled, 1, *SHAPE)
    label = torch.randint(0, classes, (labeled, *SHAPE), generator=generator)
    return Batch(image[:labeled], label), Batch(image[labeled:], None)


@pytest.fixture
def fixed_decoders() -> Callable[..., tuple[MultiDecoderMethod, Batch, Batch]]:
    """Build a multi-decoder method on a `FixedDecoders` in float64, and its batches."""

    def make(
        kind: type[MultiDecoderMethod],
        classes: int = 2,
        *,
        labeled: int = 2,
        unlabeled: int = 2,
        seed: int = 0,
        **options: object,
    ) -> tuple[MultiDecoderMethod, Batch, Batch]:
        generator = torch.Generator().manual_seed(seed)
        shape = (labeled + unlabeled, classes, *SHAPE)
        decoders = range(1 + len(kind.others))
        logits = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in decoders]
        features = [
            torch.randn(shape[0], 5, *SHAPE, generator=generator, dtype=torch.float64).relu()
            for _ in decoders
        ]
        method = kind(kind.Config.model_validate(options))
        method.net = FixedDecoders(features, logits)
        return method, *random_batches(classes, labeled, unlabeled, generator)

    return make


class FixedMap(nn.Module):
    """A network whose output is a parameter."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, image: Tensor) -> Tensor:
        return self.output


@pytest.fixture
def fixed_map() -> Callable[..., tuple[SignedDistanceMethod, Batch, Batch]]:
    """Build a method of signed distances on a `FixedMap` in float64, and its batches.

    `gain` scales the distance maps before tanh.
    """

    def make(
        kind: type[SignedDistanceMethod],
        classes: int = 2,
        *,
        labeled: int = 2,
        unlabeled: int = 2,
        seed: int = 0,
        gain: float = 1.0,
        **options: object,
    ) -> tuple[SignedDistanceMethod, Batch, Batch]:
        generator = torch.Generator().manual_seed(seed)
        shape = (labeled + unlabeled, 2 * (classes - 1), *SHAPE)
        output = torch.randn(shape, generator=generator, dtype=torch.float64)
        output[:, : classes - 1] *= gain
        method = kind(kind.Config.model_validate(options))
        method.net = FixedMap(output)
        return method, *random_batches(classes, labeled, unlabeled, generator)

    return make
