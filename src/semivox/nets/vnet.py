"""The V-Net of the semi-supervised literature: plain convolution stages and added skips."""

from __future__ import annotations

from math import prod

from torch import nn

from semivox.nets.blocks import Down, Encoder, Stage, kernels_for
from semivox.nets.network import Segmenter
from semivox.nets.spec import NetSpec


class VNet(Segmenter):
    """V-Net without residual connections inside a level.

    Dropout stands after the coarsest level and before the head. With width 16, one channel and two classes:
    9,448,866 parameters and 40.11 GMAC for a 112x112x80 patch.

    Source: Milletari et al., "V-Net", 3DV 2016, in the plain variant of Yu et al., MICCAI 2019.
    """

    repeats = (1, 2, 3, 3, 3)  # convolutions a level, fine to coarse

    def __init__(self, net: NetSpec) -> None:
        first, *kernels = kernels_for(net.strides, net.stem)
        levels: list[nn.Module] = [
            Stage(net.in_channels * prod(net.stem), net.width, self.repeats[0], net.norm, first)
        ]
        for level, (stride, kernel) in enumerate(zip(net.strides, kernels, strict=True)):
            channels = net.width * 2**level
            convolutions = Stage(2 * channels, 2 * channels, self.repeats[level + 1], net.norm, kernel)
            levels.append(nn.Sequential(Down(channels, net.norm, stride), convolutions))
        super().__init__(net, Encoder(levels, net.stem), dropout=net.dropout, bottleneck_dropout=net.dropout)
