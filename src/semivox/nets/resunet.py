"""The network of the default method: a residual U-Net that works on coarse features of a fine image."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, leaky_relu

from semivox.nets import NetFactory, Triple
from semivox.nets.blocks import kernels_for, norm_layer, to_voxels
from semivox.nets.cpu import Conv
from semivox.nets.network import SCALES, Network

MOST_CHANNELS = 320
_SLOPE = 0.01


class ResUNet(Network):
    """Residual encoder, plain decoder, deep supervision.

    A strided convolution (the stem) reads blocks of `stem` voxels, so all features live on a grid that is
    coarser than the image by these factors; the head predicts every voxel of a block at once. The network
    costs what one on the coarse grid does, and its contours are those of the fine grid.

    Instance normalisation has a learned scale here. Channels double at each coarser level, up to 320; dropout
    is that of the coarsest; heads for deep supervision are always there. See `kernels_for` for kernels.

    Source: residual U-Nets follow nnU-Net (Isensee et al., arXiv 2404.09556); the rearrangement of channels
    into voxels follows Shi et al., arXiv 1609.05158.
    """

    follows_plan: ClassVar[bool] = True

    def __init__(self, net: NetFactory) -> None:
        width, norm, stem, strides = net.width, net.norm, net.stem, net.strides
        super().__init__(net)
        channels = [min(MOST_CHANNELS, width * 2**level) for level in range(len(strides) + 1)]
        kernels, merges = kernels_for(strides, stem), prod(stem) > 1
        self.stem = nn.Conv3d(net.in_channels, width, stem, stem) if merges else nn.Identity()
        inputs, steps = [width if merges else net.in_channels, *channels], [(1, 1, 1), *strides]
        self.encoder = nn.ModuleList(
            Residual(*level, norm) for level in zip(inputs, channels, steps, kernels, strict=False)
        )
        self.dropout = nn.Dropout3d(net.dropout)
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(below, here, step, step)
            for here, below, step in zip(channels, channels[1:], strides, strict=False)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(Conv(2 * here, here, kernel, bias=False), Normalised(here, norm))
            for here, kernel in zip(channels, kernels[:-1], strict=False)
        )
        self.head = nn.Conv3d(width, net.num_classes * prod(stem), 1)
        extra = range(1, min(SCALES - merges, len(strides)))
        self.coarse_heads = nn.ModuleList(nn.Conv3d(channels[level], net.num_classes, 1) for level in extra)
        self.scales = 1 + merges + len(extra)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> logits (B, K, X, Y, Z)."""
        return to_voxels(super().forward(image), self.block)

    def deep(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> logits of up to three scales, fine to coarse, for deep supervision."""
        maps = self.pyramid(image)
        blocks, size = self.head(maps[0]), prod(self.block)
        means = [blocks.unflatten(1, (self.num_classes, size)).mean(dim=2)] if size > 1 else []
        return [to_voxels(blocks, self.block), *means, *self.coarse(maps[1:])]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> the decoder's maps on the grid of the features, fine to coarse."""
        self.check(image)
        values, skips = self.stem(image), []
        for level in self.encoder:
            values = level(values)
            skips.append(values)
        values, maps = self.dropout(skips.pop()), []
        for up, decode in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            values = decode(torch.cat([up(values), skips.pop()], dim=1))
            maps.append(values)
        return maps[::-1]


class Residual(nn.Module):
    """Two convolutions beside a shortcut: (B, inputs, X, Y, Z) -> (B, channels, X / stride, ...)."""

    def __init__(self, inputs: int, channels: int, stride: Triple, kernel: Triple, norm: str) -> None:
        super().__init__()
        self.first = nn.Sequential(
            Conv(inputs, channels, kernel, stride=stride, bias=False), Normalised(channels, norm)
        )
        self.second = nn.Sequential(
            Conv(channels, channels, kernel, bias=False), norm_layer(norm, channels, affine=True)
        )
        self.shortcut = nn.Sequential(
            nn.Identity(),  # keeps the names of stored weights
            BlockMeans(inputs, channels, stride),
            norm_layer(norm, channels, affine=True),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Add the shortcut before the last activation."""
        return leaky_relu(self.second(self.first(values)) + self.shortcut(values), _SLOPE)


class BlockMeans(nn.Conv3d):
    """Average blocks of voxels, then a 1x1x1 convolution: (B, inputs, X, Y, Z) -> (B, channels, X / x, ...).

    Both in one convolution. On a CPU in bfloat16 that takes a fifth of the time of average pooling, whose
    kernel is slow in the channels-last layout: 74 -> 13 ms for 4 x 24 x 64 x 40 x 24, both passes.
    """

    def __init__(self, inputs: int, channels: int, block: Triple) -> None:
        super().__init__(inputs, channels, 1, bias=False)
        self.block = block

    def forward(self, input: Tensor) -> Tensor:
        """Spread the weights over the block."""
        if prod(self.block) == 1:
            return super().forward(input)
        weight = (self.weight / prod(self.block)).expand(-1, -1, *self.block)
        layout = torch.channels_last_3d
        return conv3d(input, weight.contiguous(memory_format=layout), stride=self.block)


class Normalised(nn.Sequential):
    """Normalisation and leaky ReLU."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__(norm_layer(norm, channels, affine=True), nn.LeakyReLU(_SLOPE, inplace=True))
