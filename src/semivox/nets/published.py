"""The networks of the semi-supervised literature: V-Net, ResNet-34 and 3D U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from semivox.nets import NetFactory, Triple
from semivox.nets.blocks import Down, PyramidDecoder, Stage, enlarge, kernels_for, norm_layer
from semivox.nets.cpu import Conv, Conv7x7x7
from semivox.nets.network import Segmenter

LEVEL_DROPOUT = (0.2, 0.4, 0.6, 1.0)  # of the coarsest decoder level's probability, fine to coarse


class VNet(Segmenter):
    """V-Net without residual connections inside a level.

    Dropout stands after the coarsest level and before the head. With width 16, one channel and two classes:
    9,448,866 parameters and 40.11 GMAC for a 112x112x80 patch.

    Source: Milletari et al., "V-Net", 3DV 2016, in the plain variant of Yu et al., MICCAI 2019.
    """

    repeats = (1, 2, 3, 3, 3)  # convolutions a level, fine to coarse

    def __init__(self, net: NetFactory) -> None:
        first, *kernels = kernels_for(net.strides, net.stem)
        levels: list[nn.Module] = [
            Stage(net.in_channels * prod(net.stem), net.width, self.repeats[0], net.norm, first)
        ]
        for level, (stride, kernel) in enumerate(zip(net.strides, kernels, strict=True)):
            channels = net.width * 2**level
            convolutions = Stage(2 * channels, 2 * channels, self.repeats[level + 1], net.norm, kernel)
            levels.append(nn.Sequential(Down(channels, net.norm, stride), convolutions))
        super().__init__(net, levels, dropout=net.dropout, bottleneck_dropout=net.dropout)


class ResNet34(Segmenter):
    """ResNet-34 encoder with a full-resolution stem and no pooling, V-Net decoder.

    Dropout stands before the head only. With width 16, one channel and two classes: 17,930,354 parameters and
    72.74 GMAC for a 112x112x80 patch.

    Source: He et al., CVPR 2016, in 3D as partner of a V-Net: Wang et al., "MCF", CVPR 2023.
    """

    blocks = (3, 4, 6, 3)  # a stage

    def __init__(self, net: NetFactory) -> None:
        width, norm = net.width, net.norm
        thin, *kernels = kernels_for(net.strides, net.stem)
        inputs = net.in_channels * prod(net.stem)
        x, y, z = (7 if side == 3 else 1 for side in thin)
        first = Conv7x7x7(inputs, width) if min(thin) == 3 else Conv(inputs, width, (x, y, z), bias=False)
        levels: list[nn.Module] = [nn.Sequential(first, norm_layer(norm, width), nn.ReLU(inplace=True))]
        for level, (count, stride, kernel) in enumerate(zip(self.blocks, net.strides, kernels, strict=False)):
            channels = 2 * width * 2**level
            block = BasicBlock(channels // 2, channels, stride, kernel, norm)
            more = (BasicBlock(channels, channels, (1, 1, 1), kernel, norm) for _ in range(count - 1))
            levels.append(nn.Sequential(block, *more))
        super().__init__(net, levels, dropout=net.dropout)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; with a stride, that is a strided 1x1x1 convolution."""

    def __init__(self, inputs: int, channels: int, stride: Triple, kernel: Triple, norm: str) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            Conv(inputs, channels, kernel, stride=stride, bias=False),
            norm_layer(norm, channels),
            nn.ReLU(inplace=True),
            Conv(channels, channels, kernel, bias=False),
            norm_layer(norm, channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if max(stride) > 1 or inputs != channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, channels, kernel_size=1, stride=stride, bias=False),
                norm_layer(norm, channels),
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, X / stride, ...)."""
        output: Tensor = self.activation(self.residual(image) + self.shortcut(image))
        return output


class UNet3D(Segmenter):
    """3D U-Net: max pooling down, trilinear upsampling, concatenated skips, two convolutions a level.

    Dropout stands after each decoder level: 0.5, 0.3, 0.2 and, before the head, 0.1 of the channels for
    `dropout` 0.5. As published it has instance normalisation (`net.norm=instance`) and then, with width 16,
    one channel and two classes, 5,884,050 parameters. Pooling and trilinear upsampling have no deterministic
    backward pass on CUDA.

    Source: Cicek et al., "3D U-Net", MICCAI 2016, in the variant of Luo et al., MICCAI 2021.
    """

    def __init__(self, net: NetFactory) -> None:
        first, *kernels = kernels_for(net.strides, net.stem)
        levels: list[nn.Module] = [Stage(net.in_channels * prod(net.stem), net.width, 2, net.norm, first)]
        for level, (stride, kernel) in enumerate(zip(net.strides, kernels, strict=True)):
            channels = net.width * 2**level
            convolutions = Stage(channels, 2 * channels, 2, net.norm, kernel)
            levels.append(nn.Sequential(nn.MaxPool3d(stride), convolutions))
        super().__init__(net, levels, UNetDecoder(net), dropout=net.dropout * LEVEL_DROPOUT[0])


class UNetDecoder(PyramidDecoder):
    """Trilinear upsampling, concatenation with the skip, two convolutions, dropout: a level.

    `net.dropout` is the probability of dropping a channel of the coarsest decoded level, before it goes to
    the next level; finer ones have `LEVEL_DROPOUT` of it, and the finest none (the head drops its channels).
    """

    def __init__(self, net: NetFactory) -> None:
        super().__init__(net.width, net.stem)
        levels, kernels = range(len(net.strides) - 1, -1, -1), kernels_for(net.strides, net.stem)
        self.strides = tuple(net.strides)
        self.stages = nn.ModuleList(
            Stage(3 * net.width * 2**level, net.width * 2**level, 2, net.norm, kernels[level])
            for level in levels
        )
        self.dropouts = nn.ModuleList(
            nn.Dropout3d(net.dropout * LEVEL_DROPOUT[level] if level else 0.0) for level in levels
        )

    def decode(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode level by level; the channels are dropped already, except of the finest level."""
        *skips, coarsest = levels
        maps = [coarsest]
        parts = zip(self.stages, self.dropouts, reversed(skips), reversed(self.strides), strict=True)
        for stage, dropout, skip, stride in parts:
            maps.append(dropout(stage(torch.cat([skip, enlarge(maps[-1], stride)], dim=1))))
        return maps[:0:-1]
