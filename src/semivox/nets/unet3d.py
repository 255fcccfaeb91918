"""A 3D U-Net with two convolutions a level, pooled and concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from semivox.nets.blocks import Encoder, PyramidDecoder, Stage, Triple, enlarge, kernels_for
from semivox.nets.network import Segmenter
from semivox.nets.spec import NetSpec

LEVEL_DROPOUT = (0.2, 0.4, 0.6, 1.0)  # of the coarsest decoder level's probability, fine to coarse


class UNetDecoder(PyramidDecoder):
    """Trilinear upsampling, concatenation with the skip, two convolutions, dropout: a level.

    Args:
        width, norm, strides, block: as of `Decoder`.
        dropout: probability of dropping a channel of the coarsest decoded level, before it goes to the next
            level; finer ones have `LEVEL_DROPOUT` of it, and the finest none (the head drops its channels).
    """

    repeats = 2  # convolutions a level

    def __init__(
        self, width: int, norm: str, strides: Sequence[Triple], block: Triple, *, dropout: float
    ) -> None:
        super().__init__(width, block)
        levels, kernels = range(len(strides) - 1, -1, -1), kernels_for(strides, block)
        self.strides = tuple(strides)
        self.stages = nn.ModuleList(
            Stage(3 * width * 2**level, width * 2**level, self.repeats, norm, kernels[level])
            for level in levels
        )
        self.dropouts = nn.ModuleList(
            nn.Dropout3d(dropout * LEVEL_DROPOUT[level] if level else 0.0) for level in levels
        )

    def decode(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode level by level; the channels are dropped already, except of the finest level."""
        *skips, coarsest = levels
        maps = [coarsest]
        parts = zip(self.stages, self.dropouts, reversed(skips), reversed(self.strides), strict=True)
        for stage, dropout, skip, stride in parts:
            maps.append(dropout(stage(torch.cat([skip, enlarge(maps[-1], stride)], dim=1))))
        return maps[:0:-1]


class UNet3D(Segmenter):
    """3D U-Net: max pooling down, trilinear upsampling, concatenated skips.

    Dropout stands after each decoder level: 0.5, 0.3, 0.2 and, before the head, 0.1 of the channels for
    `dropout` 0.5. As published it has instance normalisation (`net.norm=instance`) and then, with width 16,
    one channel and two classes, 5,884,050 parameters. Pooling and trilinear upsampling have no deterministic
    backward pass on CUDA.

    Source: Cicek et al., "3D U-Net", MICCAI 2016, in the variant of Luo et al., MICCAI 2021.
    """

    repeats = 2  # convolutions a level

    def __init__(self, net: NetSpec) -> None:
        first, *kernels = kernels_for(net.strides, net.stem)
        levels: list[nn.Module] = [
            Stage(net.in_channels * prod(net.stem), net.width, self.repeats, net.norm, first)
        ]
        for level, (stride, kernel) in enumerate(zip(net.strides, kernels, strict=True)):
            channels = net.width * 2**level
            convolutions = Stage(channels, 2 * channels, self.repeats, net.norm, kernel)
            levels.append(nn.Sequential(nn.MaxPool3d(stride), convolutions))
        decoder = UNetDecoder(net.width, net.norm, net.strides, net.stem, dropout=net.dropout)
        super().__init__(net, Encoder(levels, net.stem), decoder, dropout=net.dropout * LEVEL_DROPOUT[0])
