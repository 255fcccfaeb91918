"""Building blocks of the encoder-decoder networks, and `Segmenter`, what they all are."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import interpolate

from semivox.errors import UserError, unknown
from semivox.nets.cpu import Conv, InstanceNorm

Triple = tuple[int, int, int]
HALVINGS: tuple[Triple, ...] = ((2, 2, 2),) * 4  # as published: between five levels
DIVISOR = 2 ** len(HALVINGS)
CUBE: Triple = (3, 3, 3)
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


def factor_of(steps: Sequence[Triple]) -> Triple:
    """Multiply strides level by level."""
    x, y, z = (prod(level[axis] for level in steps) for axis in range(3))
    return x, y, z


def kernels_for(strides: Sequence[Triple], stem: Triple = (1, 1, 1)) -> list[Triple]:
    """Return the kernels of all levels, fine to coarse: one voxel along thick slices, three elsewhere.

    Slices are thick at a level if they were never halved, and are not after it, while another axis is.
    """
    kernels = []
    for level, stride in enumerate(strides):
        halved = factor_of([stem, *strides[: level + 1]])
        x, y, z = (1 if times == 1 and max(stride) > 1 else 3 for times in halved)
        kernels.append((x, y, z))
    return [*kernels, CUBE]


class Stage(nn.Sequential):
    """`repeats` times convolution, norm, ReLU: (B, inputs, X, Y, Z) -> (B, channels, X, Y, Z)."""

    def __init__(self, inputs: int, channels: int, repeats: int, norm: str, kernel: Triple = CUBE) -> None:
        layers: list[nn.Module] = []
        for index in range(repeats):
            layers += [
                Conv(inputs if index == 0 else channels, channels, kernel),
                norm_layer(norm, channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Down(nn.Sequential):
    """Convolution of blocks of `stride` voxels, norm, ReLU: divides the grid, doubles the channels."""

    def __init__(self, channels: int, norm: str, stride: Triple) -> None:
        super().__init__(
            nn.Conv3d(channels, 2 * channels, kernel_size=stride, stride=stride),
            norm_layer(norm, 2 * channels),
            nn.ReLU(inplace=True),
        )


class Up(nn.Sequential):
    """Multiplies the grid, halves the channels: an up-sampling convolution, norm, ReLU.

    Args:
        channels: of the input.
        norm: see `norm_layer`.
        kind: transposed: transposed convolution to blocks of `stride` voxels; trilinear (corners aligned) or
            nearest: interpolation, then a convolution.
        stride: along each axis.
        kernel: of the convolution after an interpolation.
    """

    def __init__(
        self,
        channels: int,
        norm: str,
        kind: UpKind = "transposed",
        stride: Triple = HALVINGS[0],
        kernel: Triple = CUBE,
    ) -> None:
        half = channels // 2
        enlarge: list[nn.Module]
        match kind:
            case "transposed":
                enlarge = [nn.ConvTranspose3d(channels, half, kernel_size=stride, stride=stride)]
            case "trilinear":
                larger = nn.Upsample(scale_factor=stride, mode="trilinear", align_corners=True)
                enlarge = [larger, Conv(channels, half, kernel)]
            case "nearest":
                enlarge = [nn.Upsample(scale_factor=stride, mode="nearest"), Conv(channels, half, kernel)]
        super().__init__(*enlarge, norm_layer(norm, half), nn.ReLU(inplace=True))


def enlarge(values: Tensor, factor: Triple) -> Tensor:
    """Trilinear upsampling (B, C, X, Y, Z) -> (B, C, X * x, Y * y, Z * z) over the same volume."""
    return interpolate(values, scale_factor=factor, mode="trilinear", align_corners=False)


class Encoder(nn.Module):
    """Levels that each read the one before: image -> a feature map a level, fine to coarse."""

    def __init__(self, levels: Sequence[nn.Module]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> maps with `width * 2**l` channels, each on a coarser grid than the last."""
        maps = [image]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


class PyramidDecoder(nn.Module):
    """What all decoders are: the encoder's maps -> as many decoded levels but one."""

    def pyramid(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode the encoder's maps level by level; both fine to coarse, with `width * 2**l` channels."""
        raise NotImplementedError

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Decode the encoder's maps, given fine to coarse, into (B, width, X, Y, Z)."""
        return self.pyramid(levels)[0]


class Decoder(PyramidDecoder):
    """The V-Net's decoder with added skips, also that of the ResNet.

    Args:
        width: channels of the finest level.
        norm: see `norm_layer`.
        strides: between the levels, fine to coarse.
        up: how every level is up-sampled, see `Up`.
    """

    repeats = (1, 2, 3, 3)  # convolutions a level, fine to coarse

    def __init__(
        self, width: int, norm: str, strides: Sequence[Triple] = HALVINGS, *, up: UpKind = "transposed"
    ) -> None:
        super().__init__()
        parts = strides, kernels_for(strides), self.repeats
        levels = [
            (width * 2**level, stride, kernel, repeats)
            for level, (stride, kernel, repeats) in reversed(list(enumerate(zip(*parts, strict=False))))
        ]
        self.ups = nn.ModuleList(Up(2 * here, norm, up, stride, kernel) for here, stride, kernel, _ in levels)
        self.stages = nn.ModuleList(
            Stage(here, here, repeats, norm, kernel) for here, _, kernel, repeats in levels
        )

    def pyramid(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Upsample, add the skip, convolve: level by level."""
        *skips, coarsest = levels
        maps = [coarsest]
        for up, stage, skip in zip(self.ups, self.stages, reversed(skips), strict=True):
            maps.append(stage(up(maps[-1]) + skip))
        return maps[:0:-1]


class Network(nn.Module):
    """What every network knows of the patches that it takes.

    Args:
        in_channels: image channels.
        num_classes: classes, background included.
        width: channels of the finest level.
        norm: see `norm_layer`.
        steps: voxels that become one, along each axis, one level after the other.
    """

    follows_plan: ClassVar[bool] = False  # True: always takes the plan's `stem` and `strides`

    def __init__(
        self, *, in_channels: int, num_classes: int, width: int, norm: str, steps: Sequence[Triple]
    ) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.width, self.norm = in_channels, num_classes, width, norm
        self.divisor = factor_of(steps)  # of the sides of a patch

    def deep(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> logits for deep supervision, fine to coarse; here the finest alone."""
        return [self(image)]

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
            wanted = " x ".join(map(str, self.divisor))
            do = "set plan.patch, e.g. --set plan.patch=[96,96,96]"
            expected = f"multiples of {wanted}"
            raise UserError("The network cannot take a patch of this size", size, expected, do)
        samples = {"instance": 1, "batch": batch if self.training else 2}.get(self.norm, 2)
        if batch and samples * prod(sides) == prod(self.divisor):
            what = f"The patch is too small for {self.norm} normalisation"
            found = f"one voxel at the coarsest level of a {size} patch"
            raise UserError(what, found, "at least two voxels", "set a larger plan.patch, or net.norm=group")


class Segmenter(Network):
    """Encoder, decoder and head, every (transposed) convolution Kaiming-normal.

    Args:
        encoder: image (B, C, X, Y, Z) -> a feature map a level, see `Encoder`.
        decoder: those -> decoded maps; None: the V-Net's.
        in_channels: image channels.
        num_classes: classes, background included.
        width: channels of the finest level.
        norm: see `norm_layer`.
        dropout: probability of dropping a channel before the head.
        strides: between the levels, fine to coarse.
        bottleneck_dropout: dropout after the encoder.
    """

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
        strides: Sequence[Triple] = HALVINGS,
        bottleneck_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            in_channels=in_channels, num_classes=num_classes, width=width, norm=norm, steps=strides
        )
        self.strides, self.head_dropout = tuple(strides), dropout
        self.encoder = encoder
        self.dropout = nn.Dropout3d(bottleneck_dropout)
        self.decoder = decoder or Decoder(width, norm, strides)
        self.head = make_head(width, num_classes, dropout)
        self.apply(initialise)

    def encode(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the encoder's maps, fine to coarse; channels of the coarsest are dropped.

        Raises:
            UserError: wrong number of channels, or sides that the network cannot take.
        """
        self.check(image)
        *skips, coarsest = self.encoder(image)
        return [*skips, self.dropout(coarsest)]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the decoder's levels, fine to coarse: `features`, then coarser ones.

        Level l has `width * 2**l` channels, and `factor_of(strides[:l])` voxels of the image become one.
        """
        return self.decoder.pyramid(self.encode(image))

    def features(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, width, X, Y, Z): the last decoder level, before the head's dropout."""
        return self.pyramid(image)[0]

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> logits (B, K, X, Y, Z)."""
        logits: Tensor = self.head(self.features(image))
        return logits


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
