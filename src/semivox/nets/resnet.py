"""A ResNet-34 encoder in front of the V-Net's decoder."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from semivox.nets.blocks import Encoder, Triple, kernels_for, norm_layer
from semivox.nets.cpu import Conv, Conv7x7x7
from semivox.nets.network import Segmenter
from semivox.nets.spec import NetSpec


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


class ResNet34(Segmenter):
    """ResNet-34 encoder with a full-resolution stem and no pooling, V-Net decoder.

    Dropout stands before the head only. With width 16, one channel and two classes: 17,930,354 parameters and
    72.74 GMAC for a 112x112x80 patch.

    Source: He et al., CVPR 2016, in 3D as partner of a V-Net: Wang et al., "MCF", CVPR 2023.
    """

    blocks = (3, 4, 6, 3)  # a stage

    def __init__(self, net: NetSpec) -> None:
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
        super().__init__(net, Encoder(levels, net.stem), dropout=net.dropout)
