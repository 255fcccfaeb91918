"""Building blocks of the encoder-decoder networks, and `Segmenter`, what they all are."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import interpolate

from semivox.errors import UserError, unknown
from semivox.nets.cpu import Conv3x3x3, InstanceNorm

LEVELS = 5
DIVISOR = 2 ** (LEVELS - 1)
NORMS = ("batch", "instance", "group", "none")
UpKind = Literal["transposed", "trilinear", "nearest"]


def norm_layer(norm: str, channels: int, *, affine: bool = False) -> nn.Module:
    """Build a normalisation layer; group has at most 16 groups, instance a learned scale if `affine`."""
    match norm:
        case "batch":
            return nn.BatchNorm3d(channels)
        case "instance":
            return InstanceNorm(channels, affine=affine)
        case "group":
            return nn.GroupNorm(gcd(16, channels), channels)
        case "none":
            return nn.Identity()
    raise unknown("normalisation layer", norm, NORMS)


class Stage(nn.Sequential):
    """`repeats` times conv 3x3x3, norm, ReLU: (B, inputs, X, Y, Z) -> (B, channels, X, Y, Z)."""

    def __init__(self, inputs: int, channels: int, repeats: int, norm: str) -> None:
        layers: list[nn.Module] = []
        for index in range(repeats):
            layers += [
                Conv3x3x3(inputs if index == 0 else channels, channels),
                norm_layer(norm, channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Down(nn.Sequential):
    """Conv 2x2x2 with stride 2, norm, ReLU: halves the grid, doubles the channels."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__(
            nn.Conv3d(channels, 2 * channels, kernel_size=2, stride=2),
            norm_layer(norm, 2 * channels),
            nn.ReLU(inplace=True),
        )


class Up(nn.Sequential):
    """Doubles the grid, halves the channels: an up-sampling convolution, norm, ReLU.

    Args:
        channels: of the input.
        norm: see `norm_layer`.
        kind: transposed: transposed conv 2x2x2 with stride 2; trilinear (corners aligned) or nearest:
            interpolation by 2, then conv 3x3x3.
    """

    def __init__(self, channels: int, norm: str, kind: UpKind = "transposed") -> None:
        half = channels // 2
        enlarge: list[nn.Module]
        match kind:
            case "transposed":
                enlarge = [nn.ConvTranspose3d(channels, half, kernel_size=2, stride=2)]
            case "trilinear":
                larger = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True)
                enlarge = [larger, Conv3x3x3(channels, half)]
            case "nearest":
                enlarge = [nn.Upsample(scale_factor=2, mode="nearest"), Conv3x3x3(channels, half)]
        super().__init__(*enlarge, norm_layer(norm, half), nn.ReLU(inplace=True))


def enlarge(values: Tensor, factor: int) -> Tensor:
    """Trilinear upsampling (B, C, X, Y, Z) -> (B, C, X * factor, ...) over the same volume."""
    return interpolate(values, scale_factor=factor, mode="trilinear", align_corners=False)


class Encoder(nn.Module):
    """Levels that each read the one before: image -> five feature maps, fine to coarse."""

    def __init__(self, levels: Sequence[nn.Module]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> maps with `width * 2**l` channels at 1 / 2**l of the resolution."""
        maps = [image]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


class PyramidDecoder(nn.Module):
    """What all decoders are: the encoder's maps -> four decoded levels."""

    def pyramid(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode the encoder's five maps, given fine to coarse, level by level.

        Returns:
            Four maps, fine to coarse, with `width * 2**l` channels at 1 / 2**l of the resolution.
        """
        raise NotImplementedError

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Decode the encoder's maps, given fine to coarse, into (B, width, X, Y, Z)."""
        return self.pyramid(levels)[0]


class Decoder(PyramidDecoder):
    """The V-Net's decoder with added skips, also that of the ResNet.

    Args:
        width: channels of the finest level.
        norm: see `norm_layer`.
        up: how every level is up-sampled, see `Up`.
    """

    repeats = (3, 3, 2, 1)  # convolutions a level, coarse to fine

    def __init__(self, width: int, norm: str, *, up: UpKind = "transposed") -> None:
        super().__init__()
        channels = [width * 2**level for level in reversed(range(LEVELS))]
        self.ups = nn.ModuleList(Up(count, norm, up) for count in channels[:-1])
        self.stages = nn.ModuleList(
            Stage(count, count, repeats, norm)
            for count, repeats in zip(channels[1:], self.repeats, strict=True)
        )

    def pyramid(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Upsample, add the skip, convolve: level by level."""
        *skips, coarsest = levels
        maps = [coarsest]
        for up, stage, skip in zip(self.ups, self.stages, reversed(skips), strict=True):
            maps.append(stage(up(maps[-1]) + skip))
        return maps[:0:-1]


class Segmenter(nn.Module):
    """Encoder, decoder and head, every (transposed) convolution Kaiming-normal.

    Args:
        encoder: image (B, C, X, Y, Z) -> five feature maps, see `Encoder`.
        decoder: those -> four decoded maps; None: the V-Net's.
        in_channels: image channels.
        num_classes: classes, background included.
        width: channels of the finest level.
        norm: see `norm_layer`.
        dropout: probability of dropping a channel before the head.
        bottleneck_dropout: the same after the encoder.
    """

    follows_plan: ClassVar[bool] = False  # whether the plan's `stem` and `strides` are taken

    divisor = (DIVISOR, DIVISOR, DIVISOR)  # of the sides of a patch

    def __init__(
        self,
        encoder: nn.Module,
        decoder: PyramidDecoder | None = None,
        *,
        in_channels: int,
        num_classes: int,
        width: int,
        norm: str,
        dropout: float,
        bottleneck_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.width, self.norm = in_channels, num_classes, width, norm
        self.head_dropout = dropout
        self.encoder = encoder
        self.dropout = nn.Dropout3d(bottleneck_dropout)
        self.decoder = decoder or Decoder(width, norm)
        self.head = make_head(width, num_classes, dropout)
        self.apply(initialise)

    def encode(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the encoder's maps, fine to coarse; channels of the coarsest are dropped.

        Raises:
            UserError: wrong number of channels, or a side that 16 does not divide.
        """
        self._check(image)
        *skips, coarsest = self.encoder(image)
        return [*skips, self.dropout(coarsest)]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the four decoder levels, fine to coarse: `features`, then coarser ones.

        Level l has `width * 2**l` channels at 1 / 2**l of the resolution.
        """
        return self.decoder.pyramid(self.encode(image))

    def features(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, width, X, Y, Z): the last decoder level, before the head's dropout."""
        return self.pyramid(image)[0]

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> logits (B, K, X, Y, Z)."""
        logits: Tensor = self.head(self.features(image))
        return logits

    def deep(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> logits for deep supervision, fine to coarse; here the finest alone."""
        return [self(image)]

    def _check(self, image: Tensor) -> None:
        batch, channels, *sides = image.shape
        if channels != self.in_channels:
            raise UserError("Wrong number of image channels", channels, self.in_channels)
        size, wanted = " x ".join(map(str, sides)), f"sides divisible by {DIVISOR}"
        if any(side % DIVISOR for side in sides):
            do = "set plan.patch, e.g. --set plan.patch=[96,96,96]"
            raise UserError("The network cannot take a patch of this size", size, wanted, do)
        samples = {"instance": 1, "batch": batch if self.training else 2}.get(self.norm, 2)
        if batch and samples * prod(sides) == DIVISOR**3:
            what = f"The patch is too small for {self.norm} normalisation"
            found = f"one voxel at the coarsest level of a {size} patch"
            raise UserError(what, found, "at least two voxels", "set a larger plan.patch, or net.norm=group")


def make_head(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Dropout of whole channels, then conv 1x1x1: (B, width, X, Y, Z) -> logits (B, num_classes, X, Y, Z)."""
    return nn.Sequential(nn.Dropout3d(dropout), nn.Conv3d(width, num_classes, kernel_size=1))


def initialise(module: nn.Module) -> None:
    """Kaiming-normal (transposed) convolutions, norms that scale by 1; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm3d | nn.GroupNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
