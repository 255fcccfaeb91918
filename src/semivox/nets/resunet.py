"""The network of the default method: a residual U-Net that works on coarse features of a fine image."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, leaky_relu

from semivox.nets import NetFactory, Triple
from semivox.nets.blocks import MOST_CHANNELS, levels_of, norm_layer, to_voxels
from semivox.nets.cpu import Conv
from semivox.nets.network import SCALES, Network

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
        super().__init__(net)
        width, norm, classes, size = net.width, net.norm, net.num_classes, prod(net.stem)
        levels = levels_of(net, MOST_CHANNELS)
        self.stem: nn.Module = nn.Identity()
        if size > 1:
            self.stem = nn.Conv3d(net.in_channels, width, net.stem, net.stem)
            levels[0] = levels[0]._replace(inputs=width)
        self.encoder = nn.ModuleList(Residual(*level, norm) for level in levels)
        self.dropout = nn.Dropout3d(net.dropout)
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(coarse.channels, fine.channels, coarse.stride, coarse.stride)
            for fine, coarse in pairwise(levels)
        )
        self.decoder = nn.ModuleList(
            _convolved(2 * level.channels, level.channels, level.kernel, norm) for level in levels[:-1]
        )
        self.head = nn.Conv3d(width, classes * size, 1)
        supervised = levels[1 : min(SCALES - (size > 1), len(net.strides))]
        self.coarse_heads = nn.ModuleList(nn.Conv3d(level.channels, classes, 1) for level in supervised)
        self.scales = 1 + (size > 1) + len(supervised)

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
        values, skips, maps = self.stem(image), [], []
        for level in self.encoder:
            values = level(values)
            skips.append(values)
        values = self.dropout(skips.pop())
        for up, decode in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            values = decode(torch.cat([up(values), skips.pop()], dim=1))
            maps.append(values)
        return maps[::-1]


class Residual(nn.Module):
    """Two convolutions beside a shortcut: (B, inputs, X, Y, Z) -> (B, channels, X / stride, ...)."""

    def __init__(self, inputs: int, channels: int, stride: Triple, kernel: Triple, norm: str) -> None:
        super().__init__()
        self.first = _convolved(inputs, channels, kernel, norm, stride)
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


def _convolved(
    inputs: int, channels: int, kernel: Triple, norm: str, stride: Triple = (1, 1, 1)
) -> nn.Sequential:
    """Convolution, then normalisation and leaky ReLU."""
    convolution = Conv(inputs, channels, kernel, stride=stride, bias=False)
    behind = norm_layer(norm, channels, affine=True), nn.LeakyReLU(_SLOPE, inplace=True)
    return nn.Sequential(convolution, nn.Sequential(*behind))
