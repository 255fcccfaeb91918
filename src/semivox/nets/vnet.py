"""The V-Net of the semi-supervised literature: plain convolution stages and added skips."""

from __future__ import annotations

from torch import nn

from semivox.nets.blocks import Down, Encoder, Segmenter, Stage


class VNet(Segmenter):
    """V-Net without residual connections inside a level.

    Dropout stands after the coarsest level and before the head. With width 16, one channel and two classes:
    9,448,866 parameters and 40.11 GMAC for a 112x112x80 patch.

    Source: Milletari et al., "V-Net", 3DV 2016, in the plain variant of Yu et al., MICCAI 2019.
    """

    repeats = (1, 2, 3, 3, 3)  # convolutions a level, fine to coarse

    def __init__(self, *, in_channels: int, num_classes: int, width: int, norm: str, dropout: float) -> None:
        first, *others = self.repeats
        levels: list[nn.Module] = [Stage(in_channels, width, first, norm)]
        for level, repeats in enumerate(others):
            channels = width * 2**level
            levels.append(
                nn.Sequential(Down(channels, norm), Stage(2 * channels, 2 * channels, repeats, norm))
            )
        super().__init__(
            Encoder(levels),
            in_channels=in_channels,
            num_classes=num_classes,
            width=width,
            norm=norm,
            dropout=dropout,
            bottleneck_dropout=dropout,
        )
