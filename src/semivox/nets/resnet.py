"""A ResNet-34 encoder in front of the V-Net's decoder."""

from __future__ import annotations

from torch import Tensor, nn

from semivox.nets.blocks import Encoder, Segmenter, norm_layer
from semivox.nets.cpu import Conv3x3x3, Conv7x7x7


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut; the first block of a stage halves the grid.

    Args:
        inputs: channels of the input.
        channels: channels of the output.
        stride: 1, or 2 with a strided 1x1x1 convolution as shortcut.
        norm: see `norm_layer`.
    """

    def __init__(self, inputs: int, channels: int, stride: int, norm: str) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            Conv3x3x3(inputs, channels, stride=stride, bias=False),
            norm_layer(norm, channels),
            nn.ReLU(inplace=True),
            Conv3x3x3(channels, channels, bias=False),
            norm_layer(norm, channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
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

    def __init__(self, *, in_channels: int, num_classes: int, width: int, norm: str, dropout: float) -> None:
        stem = nn.Sequential(Conv7x7x7(in_channels, width), norm_layer(norm, width), nn.ReLU(inplace=True))
        levels: list[nn.Module] = [stem]
        for level, count in enumerate(self.blocks):
            channels = width * 2**level
            first = BasicBlock(channels, 2 * channels, 2, norm)
            others = [BasicBlock(2 * channels, 2 * channels, 1, norm) for _ in range(count - 1)]
            levels.append(nn.Sequential(first, *others))
        super().__init__(
            Encoder(levels),
            in_channels=in_channels,
            num_classes=num_classes,
            width=width,
            norm=norm,
            dropout=dropout,
        )
