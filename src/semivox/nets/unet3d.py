"""A 3D U-Net with two convolutions a level, pooled and concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from semivox.nets.blocks import LEVELS, Encoder, PyramidDecoder, Segmenter, Stage, enlarge

LEVEL_DROPOUT = (0.2, 0.4, 0.6, 1.0)  # of the coarsest decoder level's probability, fine to coarse


class UNetDecoder(PyramidDecoder):
    """Trilinear upsampling, concatenation with the skip, two convolutions, dropout: a level.

    Args:
        width: channels of the finest level.
        norm: see `norm_layer`.
        dropout: probability of dropping a channel of the coarsest decoded level, before it goes to the next
            level; the finer ones have `LEVEL_DROPOUT` of it, and the finest none (the head drops its
            channels).
    """

    repeats = 2  # convolutions a level

    def __init__(self, width: int, norm: str, *, dropout: float) -> None:
        super().__init__()
        channels = [width * 2**level for level in reversed(range(LEVELS))]
        self.stages = nn.ModuleList(
            Stage(coarse + fine, fine, self.repeats, norm) for coarse, fine in pairwise(channels)
        )
        self.dropouts = nn.ModuleList(
            nn.Dropout3d(dropout * factor) for factor in (*reversed(LEVEL_DROPOUT[1:]), 0.0)
        )

    def pyramid(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Decode level by level; the channels are dropped already, except of the finest level."""
        *skips, coarsest = levels
        maps = [coarsest]
        for stage, dropout, skip in zip(self.stages, self.dropouts, reversed(skips), strict=True):
            maps.append(dropout(stage(torch.cat([skip, enlarge(maps[-1], 2)], dim=1))))
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

    def __init__(self, *, in_channels: int, num_classes: int, width: int, norm: str, dropout: float) -> None:
        levels: list[nn.Module] = [Stage(in_channels, width, self.repeats, norm)]
        for level in range(LEVELS - 1):
            channels = width * 2**level
            levels.append(nn.Sequential(nn.MaxPool3d(2), Stage(channels, 2 * channels, self.repeats, norm)))
        super().__init__(
            Encoder(levels),
            UNetDecoder(width, norm, dropout=dropout),
            in_channels=in_channels,
            num_classes=num_classes,
            width=width,
            norm=norm,
            dropout=dropout * LEVEL_DROPOUT[0],
        )
