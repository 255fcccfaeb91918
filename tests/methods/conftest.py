"""Stand-ins for networks, and batches, for the tests of methods."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from semivox.methods import create
from semivox.methods.base import Batch, Method, PairMethod, Step
from semivox.methods.dual import Dual
from semivox.methods.heads import MultiDecoderMethod, SignedDistanceMethod
from semivox.nets import NetFactory
from semivox.nets.heads import Decoded
from semivox.nets.network import Segmenter

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

        if kind is Dual:  # UE has a value of its own
            options = {"ue_reading": "term"} | options
        method: Any = kind(kind.Config.model_validate(options))
        method.teachers = ()
        common = normal(classes)  # both lean the same way, so that there is agreement as well as disagreement
        method.net_a = Fixed(normal(5), gain * (0.7 * common + 0.5 * normal(classes)))
        method.net_b = Fixed(normal(5), gain * (0.7 * common + 0.5 * normal(classes)))
        return method, *random_batches(classes, labeled, unlabeled, generator)

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


class Tiny(Segmenter):
    """A network of 1x1x1 convolutions on pooled images, with the interface of `Segmenter`.

    Simple enough for a second implementation in NumPy; level l has 4 * 2**l channels.
    """

    width, strides = 4, ((2, 2, 2),) * 4

    def __init__(self, in_channels: int, num_classes: int) -> None:
        nn.Module.__init__(self)  # has nothing of a `Segmenter` but its type
        self.in_channels, self.num_classes = in_channels, num_classes
        self.levels = nn.ModuleList(nn.Conv3d(in_channels, 4 * 2**level, 1) for level in range(4))
        self.head = nn.Conv3d(4, num_classes, 1)

    def factor(self, level: int) -> tuple[int, int, int]:
        return (2**level,) * 3

    def pyramid(self, image: Tensor) -> list[Tensor]:
        return [
            torch.tanh(conv(avg_pool3d(image, 2**level) if level else image))
            for level, conv in enumerate(self.levels)
        ]

    def features(self, image: Tensor) -> Tensor:
        return self.pyramid(image)[0]

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class TinyFactory(NetFactory):
    def __call__(self, name: str, **overrides: Any) -> Any:
        return Tiny(self.in_channels, self.num_classes)


@pytest.fixture
def tiny() -> Callable[..., tuple[Any, Batch, Batch]]:
    """Build a method on `Tiny` networks without dropout, in float64, and its batches of 8x8x8 patches.

    A teacher's weights differ from the student's.
    """

    def make(
        name: str,
        classes: int = 2,
        *,
        labeled: int = 2,
        unlabeled: int = 2,
        channels: int = 1,
        gain: float = 4.0,
        **options: object,
    ) -> tuple[Method, Batch, Batch]:
        torch.manual_seed(0)
        method = create(name, options, TinyFactory(channels, classes, dropout=0.0)).double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in method.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.mul_(gain if parameter.dim() == 5 else 1).add_(0.2 * noise)
        image = torch.randn(labeled + unlabeled, channels, 8, 8, 8, generator=generator, dtype=torch.float64)
        label = torch.randint(0, classes, (labeled, 8, 8, 8), generator=generator)
        return method, Batch(image[:labeled], label), Batch(image[labeled:], None)

    return make


class Naive:
    """Second implementations in NumPy and SciPy, float64."""

    @staticmethod
    def numpy(tensor: Tensor) -> np.ndarray:
        return tensor.detach().double().numpy()

    @staticmethod
    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    @classmethod
    def conv(cls, values: np.ndarray, conv: Any) -> np.ndarray:
        weight, bias = cls.numpy(conv.weight)[:, :, 0, 0, 0], cls.numpy(conv.bias)
        return np.einsum("kc,bcxyz->bkxyz", weight, values) + bias.reshape(1, -1, 1, 1, 1)

    @classmethod
    def levels(cls, net: Tiny, image: np.ndarray) -> list[np.ndarray]:
        maps = []
        for level, conv in enumerate(net.levels):
            f = 2**level
            b, c, x, y, z = image.shape
            pooled = image.reshape(b, c, x // f, f, y // f, f, z // f, f).mean(axis=(3, 5, 7))
            maps.append(np.tanh(cls.conv(pooled, conv)))
        return maps

    @classmethod
    def logits(cls, net: Tiny, image: np.ndarray) -> np.ndarray:
        return cls.conv(cls.levels(net, image)[0], net.head)

    @classmethod
    def probs(cls, net: Tiny, image: np.ndarray) -> np.ndarray:
        return cls.softmax(cls.logits(net, image))

    @staticmethod
    def noise(shape: tuple[int, ...], generator: torch.Generator) -> np.ndarray:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64).numpy()
        return np.clip(0.1 * drawn, -0.2, 0.2)

    @staticmethod
    def enlarge(values: np.ndarray, factor: int) -> np.ndarray:
        sides = values.shape[2:]
        at = np.meshgrid(*[(np.arange(n * factor) + 0.5) / factor - 0.5 for n in sides], indexing="ij")
        return np.stack(
            [
                [ndimage.map_coordinates(channel, at, order=1, mode="nearest") for channel in sample]
                for sample in values
            ]
        )

    @staticmethod
    def ramp(done: float) -> float:
        return math.exp(-5 * (1 - min(done, 1)) ** 2)

    @staticmethod
    def ce_dice(probs: np.ndarray, label: np.ndarray, first_class: int) -> float:
        """(CE + Dice) / 2, Dice averaged over the classes from `first_class` on."""
        picked = np.take_along_axis(probs, label[:, None], axis=1)
        dices = []
        for c in range(first_class, probs.shape[1]):
            p, y = probs[:, c], (label == c).astype(float)
            dices.append(1 - (2 * (p * y).sum() + 1e-5) / ((p**2).sum() + (y**2).sum() + 1e-5))
        return float(-np.log(picked).mean() + np.mean(dices)) / 2


@pytest.fixture
def naive() -> type[Naive]:
    return Naive
