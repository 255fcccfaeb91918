"""Building blocks of the encoder-decoder networks."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from typing import Literal

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate

from semivox.errors import unknown
from semivox.nets import Triple
from semivox.nets.cpu import Conv, InstanceNorm

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


def to_blocks(image: Tensor, block: Triple) -> Tensor:
    """Rearrange blocks (x, y, z) of voxels into channels: (B, C, X, Y, Z) -> (B, C * x * y * z, X / x, ...).

    Voxel i (in C order) of channel c becomes channel c * x * y * z + i.
    """
    if prod(block) == 1:  # the image keeps its strides, by which PyTorch chooses how it convolves
        return image
    i, j, k = block
    return rearrange(image, "b c (x i) (y j) (z k) -> b (c i j k) x y z", i=i, j=j, k=k)


def to_voxels(values: Tensor, block: Triple) -> Tensor:
    """Undo `to_blocks`: (B, K * x * y * z, X, Y, Z) -> (B, K, X * x, ...)."""
    if prod(block) == 1:
        return values
    i, j, k = block
    return rearrange(values, "b (c i j k) x y z -> b c (x i) (y j) (z k)", i=i, j=j, k=k)


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

    transposed: transposed convolution to blocks of `stride` voxels; trilinear (corners aligned) or nearest:
    interpolation, then a convolution with the `kernel`.
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
    """Levels that each read the one before: image -> a feature map a level, fine to coarse.

    The first one reads blocks of voxels as channels, see `to_blocks`.
    """

    def __init__(self, levels: Sequence[nn.Module], block: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.levels, self.block = nn.ModuleList(levels), block

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> maps with `width * 2**l` channels, each on a coarser grid than the last."""
        maps = [to_blocks(image, self.block)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[1:]


class PyramidDecoder(nn.Module):
    """What all decoders are: the encoder's maps -> as many decoded levels but one.

    A feature of the finest level, of `width` channels, merges a block of voxels. A 1x1x1 convolution, then
    ReLU, makes features of each voxel of them.
    """

    def __init__(self, width: int, block: Triple) -> None:
        super().__init__()
        self.block, size = block, prod(block)
        layers = [nn.Conv3d(width, width * size, 1), nn.ReLU(inplace=True)] if size > 1 else []
        self.spread = nn.Sequential(*layers)

    def decode(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode the encoder's maps level by level; both fine to coarse, with `width * 2**l` channels."""
        raise NotImplementedError

    def pyramid(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode the encoder's maps; the finest level has the grid of the image."""
        finest, *coarser = self.decode(levels)
        return [to_voxels(self.spread(finest), self.block), *coarser]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Decode the encoder's maps, given fine to coarse, into (B, width, X, Y, Z)."""
        return self.pyramid(levels)[0]


class Decoder(PyramidDecoder):
    """The V-Net's decoder with added skips, also that of the ResNet.

    Strides are those between the levels, fine to coarse; `up` is how every level is up-sampled, see `Up`.
    """

    repeats = (1, 2, 3, 3)  # convolutions a level, fine to coarse

    def __init__(
        self,
        width: int,
        norm: str,
        strides: Sequence[Triple] = HALVINGS,
        block: Triple = (1, 1, 1),
        *,
        up: UpKind = "transposed",
    ) -> None:
        super().__init__(width, block)
        kernels, levels = kernels_for(strides, block), range(len(strides) - 1, -1, -1)
        self.ups = nn.ModuleList(
            Up(2 * width * 2**level, norm, up, strides[level], kernels[level]) for level in levels
        )
        self.stages = nn.ModuleList(
            Stage(width * 2**level, width * 2**level, self.repeats[level], norm, kernels[level])
            for level in levels
        )

    def decode(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Upsample, add the skip, convolve: level by level."""
        *skips, coarsest = levels
        maps = [coarsest]
        for up, stage, skip in zip(self.ups, self.stages, reversed(skips), strict=True):
            maps.append(stage(up(maps[-1]) + skip))
        return maps[:0:-1]


def initialise(module: nn.Module) -> None:
    """Kaiming-normal (transposed) convolutions, norms that scale by 1; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm3d | nn.GroupNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
