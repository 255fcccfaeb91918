"""What every network knows of the patches that it takes, and `Segmenter`, an encoder with a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from semivox.errors import UserError
from semivox.nets import MONAI, NetFactory, Triple
from semivox.nets.blocks import factor_of, initialise, to_blocks, to_voxels

SCALES = 3  # of deep supervision, at most


class Network(nn.Module):
    """What every network knows of the patches that it takes.

    The finest features, of `width` channels, merge a block of voxels of the image; the output has each voxel.
    Strides are those between the levels, fine to coarse.
    """

    follows_plan: ClassVar[bool] = False  # True: always takes the plan's `strides`
    scales: int = 1  # of the logits of `deep`
    head: Any  # features (B, width, X, Y, Z) -> logits (B, K, X, Y, Z)
    coarse_heads: Any  # the same of the coarser scales that have one
    one_size: bool = False  # whether it takes patches of one size only, that of `divisor`

    def __init__(self, net: NetFactory) -> None:
        super().__init__()
        self.spec, self.in_channels, self.num_classes = net, net.in_channels, net.num_classes
        self.width, self.norm, self.block, self.strides = net.width, net.norm, net.stem, tuple(net.strides)
        self.divisor = self.factor(len(self.strides))  # of the sides of a patch
        self.widest: float = net.width  # values for each voxel of the image in its largest map, about

    def factor(self, level: int) -> Triple:
        """Return how many voxels of the image become one at a level, along each axis."""
        return factor_of([self.block, *self.strides[:level]])

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the feature maps of all scales, fine to coarse.

        Raises:
            UserError: wrong number of channels, or sides that the network cannot take.
        """
        raise NotImplementedError

    def features(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, width, X, Y, Z): the finest of `pyramid`, before the head's dropout."""
        return self.pyramid(image)[0]

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> logits (B, K, X, Y, Z)."""
        logits: Tensor = self.head(self.features(image))
        return logits

    def deep(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> logits, and those of the coarser scales that have heads, fine to coarse."""
        finest, *coarser = self.pyramid(image)
        return [self.head(finest), *self.coarse(coarser)]

    def coarse(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn the coarser maps of `pyramid` into logits, each on its own grid, where they have heads."""
        return [head(values) for head, values in zip(self.coarse_heads, maps, strict=False)]

    def check(self, image: Tensor) -> None:
        """Refuse a wrong number of channels and what `check_patch` refuses."""
        batch, channels, *sides = image.shape
        if channels != self.in_channels:
            raise UserError("Wrong number of image channels", channels, self.in_channels)
        self.check_patch(sides, batch)

    def check_patch(self, sides: Sequence[int], batch: int) -> None:
        """Refuse sides that cannot be divided, and a single voxel at the coarsest level to normalise."""
        size = " x ".join(map(str, sides))
        if any(side % divisor for side, divisor in zip(sides, self.divisor, strict=True)):
            expected = f"multiples of {' x '.join(map(str, self.divisor))}"
            do = "set plan.patch, e.g. --set plan.patch=[96,96,96]"
            raise UserError("The network cannot take a patch of this size", size, expected, do)
        samples = {"instance": 1, "batch": batch if self.training else 2}.get(self.norm, 2)
        if batch and samples * prod(sides) == prod(self.divisor):
            what = f"The patch is too small for {self.norm} normalisation"
            found = f"one voxel at the coarsest level of a {size} patch"
            raise UserError(what, found, "at least two voxels", "set a larger plan.patch, or net.norm=group")


class Encoder(nn.Module):
    """Levels that each read the one before; the first reads blocks of voxels as channels, see `to_blocks`."""

    def __init__(self, levels: Sequence[nn.Module], block: Triple) -> None:
        super().__init__()
        self.levels, self.block = nn.ModuleList(levels), block

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> maps with `width * 2**l` channels, each on a coarser grid than the last."""
        maps = [to_blocks(image, self.block)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


class Decoder(nn.Module):
    """Turn the encoder's maps into as many decoded levels but one; both have `width * 2**l` channels.

    Level by level, coarse to fine, `ups` up-sample, the skip is added or concatenated, and `stages` convolve.
    A feature of the finest level merges a block of voxels: a 1x1x1 convolution, then ReLU, makes features of
    each voxel of them.
    """

    concatenates: ClassVar[bool] = False

    def __init__(self, net: NetFactory) -> None:
        super().__init__()
        self.block, size = net.stem, prod(net.stem)
        layers = [nn.Conv3d(net.width, net.width * size, 1), nn.ReLU(inplace=True)] if size > 1 else []
        self.spread, self.ups, self.stages = nn.Sequential(*layers), nn.ModuleList(), nn.ModuleList()

    def pyramid(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode the encoder's maps; fine to coarse, the finest level has the grid of the image."""
        *skips, values = levels
        maps = []
        for up, stage, skip in zip(self.ups, self.stages, reversed(skips), strict=True):
            values = stage(torch.cat([skip, up(values)], dim=1) if self.concatenates else up(values) + skip)
            maps.append(values)
        return [to_voxels(self.spread(values), self.block), *maps[-2::-1]]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Decode the encoder's maps, given fine to coarse, into (B, width, X, Y, Z)."""
        return self.pyramid(levels)[0]


class Segmenter(Network):
    """Encoder, decoder and head, every (transposed) convolution Kaiming-normal.

    Args:
        net: sizes, normalisation, stem and strides; with `deep`, coarser levels have heads.
        levels: of the encoder, see `Encoder`.
        decoder: of as many levels but one.
        dropout: probabilities of dropping a channel after the encoder, and before the head.
    """

    def __init__(
        self, net: NetFactory, levels: Sequence[nn.Module], decoder: Decoder, dropout: tuple[float, float]
    ) -> None:
        super().__init__(net)
        self.encoder, self.dropout = Encoder(levels, net.stem), nn.Dropout3d(dropout[0])
        self.decoder, self.head = decoder, make_head(net, dropout[1])
        self.apply(initialise)
        self.scales = min(SCALES, len(net.strides)) if net.deep else 1
        self.coarse_heads = nn.ModuleList(
            nn.Conv3d(net.width * 2**level, net.num_classes, 1) for level in range(1, self.scales)
        )
        self.coarse_heads.apply(initialise)

    def encode(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the encoder's maps, fine to coarse; channels of the coarsest are dropped."""
        self.check(image)
        *skips, coarsest = self.encoder(image)
        return [*skips, self.dropout(coarsest)]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the decoder's levels, fine to coarse: `features`, then coarser ones.

        Level l has `width * 2**l` channels. The finest has the grid of the image; of the others `factor(l)`
        voxels of the image become one.
        """
        return self.decoder.pyramid(self.encode(image))


def make_head(net: NetFactory, dropout: float) -> nn.Sequential:
    """Dropout of whole channels, then conv 1x1x1: (B, width, X, Y, Z) -> logits (B, num_classes, X, Y, Z)."""
    return nn.Sequential(nn.Dropout3d(dropout), nn.Conv3d(net.width, net.num_classes, kernel_size=1))


def with_features(net: NetFactory, name: str, *, levels: bool = False, **overrides: Any) -> Segmenter:
    """Build a network for a method that works on its features, voxel by voxel.

    With `levels` the method works on encoder and decoder, level by level, too: then on a `Segmenter`.

    Raises:
        UserError: unknown name, or a network that does not have what the method needs.
    """
    made: Segmenter = net(name, features=not levels, **overrides)
    if isinstance(made, Segmenter) or (name.startswith(MONAI) and not levels):
        return made
    wanted = "the levels of encoder and decoder" if levels else "the features of each voxel"
    names = "one of resnet34, unet3d, vnet" + ("" if levels else f", {MONAI}CLASS")
    do = "choose another network or method: semivox methods"
    raise UserError(f"This method needs {wanted}, which the network does not have", name, names, do)
