"""What every network knows of the patches that it takes, and `Segmenter`, an encoder with a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

from torch import Tensor, nn

from semivox.errors import UserError
from semivox.nets import MONAI, NetFactory, Triple
from semivox.nets.blocks import Decoder, Encoder, PyramidDecoder, factor_of, initialise

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
        self.in_channels, self.num_classes, self.width, self.norm = (
            net.in_channels, net.num_classes, net.width, net.norm
        )  # fmt: skip
        self.block, self.strides = net.stem, tuple(net.strides)
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


class Segmenter(Network):
    """Encoder, decoder and head, every (transposed) convolution Kaiming-normal.

    Args:
        net: sizes, normalisation, stem and strides; with `deep`, coarser levels have heads.
        levels: of the encoder, see `Encoder`.
        decoder: None: the V-Net's.
        dropout: probability of dropping a channel before the head.
        bottleneck_dropout: the same after the encoder.
    """

    def __init__(
        self,
        net: NetFactory,
        levels: Sequence[nn.Module],
        decoder: PyramidDecoder | None = None,
        *,
        dropout: float,
        bottleneck_dropout: float = 0.0,
    ) -> None:
        super().__init__(net)
        self.head_dropout, self.encoder = dropout, Encoder(levels, net.stem)
        self.dropout = nn.Dropout3d(bottleneck_dropout)
        self.decoder = decoder or Decoder(net.width, net.norm, net.strides, net.stem)
        self.head = make_head(net.width, net.num_classes, dropout)
        self.apply(initialise)
        coarser = range(1, min(SCALES, len(net.strides)) if net.deep else 1)
        self.coarse_heads = nn.ModuleList(
            nn.Conv3d(net.width * 2**level, net.num_classes, 1) for level in coarser
        )
        self.coarse_heads.apply(initialise)
        self.scales = 1 + len(coarser)

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


def make_head(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Dropout of whole channels, then conv 1x1x1: (B, width, X, Y, Z) -> logits (B, num_classes, X, Y, Z)."""
    return nn.Sequential(nn.Dropout3d(dropout), nn.Conv3d(width, num_classes, kernel_size=1))


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
