"""Building blocks of the encoder-decoder networks."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod
from sys import maxsize
from typing import Literal, NamedTuple

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate

from semivox.errors import unknown
from semivox.nets import HALVINGS, NetFactory, Triple
from semivox.nets.cpu import CUBE, Conv, InstanceNorm

MOST_CHANNELS = 320  # of the networks that are not published with more
NORMS = ("batch", "instance", "group", "none")
UpKind = Literal["transposed", "trilinear", "nearest"]


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


class Level(NamedTuple):
    """One level of a network: what the finer one before it hands over, and what it makes of that."""

    inputs: int
    channels: int
    stride: Triple
    kernel: Triple


def levels_of(net: NetFactory, most: int = maxsize) -> list[Level]:
    """Return the levels, fine to coarse; channels double, up to `most`. The first reads blocks of voxels."""
    channels = [min(net.width * 2**level, most) for level in range(len(net.strides) + 1)]
    inputs = [net.in_channels * prod(net.stem), *channels[:-1]]
    kernels = kernels_for(net.strides, net.stem)
    return list(map(Level, inputs, channels, [(1, 1, 1), *net.strides], kernels))


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


def enlarge(values: Tensor, factor: Triple) -> Tensor:
    """Trilinear upsampling (B, C, X, Y, Z) -> (B, C, X * x, Y * y, Z * z) over the same volume."""
    return interpolate(values, scale_factor=factor, mode="trilinear", align_corners=False)


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


def normalised(convolution: nn.Conv3d | nn.ConvTranspose3d, norm: str) -> list[nn.Module]:
    """Put normalisation and ReLU behind a convolution."""
    return [convolution, norm_layer(norm, convolution.out_channels), nn.ReLU(inplace=True)]


def stage(inputs: int, channels: int, repeats: int, norm: str, kernel: Triple) -> nn.Sequential:
    """`repeats` times convolution, norm, ReLU: (B, inputs, X, Y, Z) -> (B, channels, X, Y, Z)."""
    sizes = [inputs, *[channels] * (repeats - 1)]
    return nn.Sequential(*(part for size in sizes for part in normalised(Conv(size, channels, kernel), norm)))


class Up(nn.Sequential):
    """Multiplies the grid, halves the channels: an up-sampling convolution, norm, ReLU.

    transposed: transposed convolution to blocks of `stride` voxels; trilinear (corners aligned) or nearest:
    interpolation, then a convolution with the `kernel`.
    """

    def __init__(
        self, channels: int, norm: str, kind: UpKind, stride: Triple = HALVINGS[0], kernel: Triple = CUBE
    ) -> None:
        half = channels // 2
        if kind == "transposed":
            super().__init__(*normalised(nn.ConvTranspose3d(channels, half, stride, stride), norm))
        else:
            larger = nn.Upsample(None, stride, kind, align_corners=kind == "trilinear" or None)
            super().__init__(larger, *normalised(Conv(channels, half, kernel), norm))


def initialise(module: nn.Module) -> None:
    """Kaiming-normal (transposed) convolutions, norms that scale by 1; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.BatchNorm3d | nn.GroupNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
