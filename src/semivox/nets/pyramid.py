"""Heads on the coarser levels of a network's decoder (deep supervision)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from semivox.nets.blocks import LEVELS, Segmenter, enlarge, initialise
from semivox.nets.unet3d import LEVEL_DROPOUT


class PyramidHeads(nn.Module):
    """One 1x1x1 convolution for each decoder level but the finest, which has the network's own head.

    Args:
        net: gives the width and the number of classes.
        dropout: probability of dropping a channel of the coarsest level before its head, the finer ones have
            `LEVEL_DROPOUT` of it; 0 for a network whose levels come with channels dropped.
    """

    def __init__(self, net: Segmenter, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Dropout3d(dropout * LEVEL_DROPOUT[level]),
                nn.Conv3d(net.width * 2**level, net.num_classes, kernel_size=1),
            )
            for level in range(1, LEVELS - 1)
        )
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn the coarser maps of `Segmenter.pyramid` into logits (B, K, X, Y, Z) at full resolution."""
        return [
            enlarge(cast(Tensor, head(values)), 2**level)
            for level, (head, values) in enumerate(zip(self.heads, maps, strict=True), start=1)
        ]
