"""The V-Net of the semi-supervised literature: plain convolution stages and added skips."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import nn

from semivox.nets.blocks import HALVINGS, Down, Encoder, Stage, Triple, kernels_for
from semivox.nets.network import Segmenter


class VNet(Segmenter):
    """V-Net without residual connections inside a level.

    Dropout stands after the coarsest level and before the head. With width 16, one channel and two classes:
    9,448,866 parameters and 40.11 GMAC for a 112x112x80 patch.

    Source: Milletari et al., "V-Net", 3DV 2016, in the plain variant of Yu et al., MICCAI 2019.
    """

    repeats = (1, 2, 3, 3, 3)  # convolutions a level, fine to coarse

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        norm: str,
        dropout: float,
        stem: Triple = (1, 1, 1),
        strides: Sequence[Triple] = HALVINGS,
        **others: Any,
    ) -> None:
        first, *kernels = kernels_for(strides, stem)
        levels: list[nn.Module] = [Stage(in_channels * prod(stem), width, self.repeats[0], norm, first)]
        for level, (stride, kernel) in enumerate(zip(strides, kernels, strict=True)):
            channels = width * 2**level
            convolutions = Stage(2 * channels, 2 * channels, self.repeats[level + 1], norm, kernel)
            levels.append(nn.Sequential(Down(channels, norm, stride), convolutions))
        super().__init__(
            Encoder(levels, stem),
            dropout=dropout,
            bottleneck_dropout=dropout,
            in_channels=in_channels,
            width=width,
            norm=norm,
            stem=stem,
            strides=strides,
            **others,
        )
