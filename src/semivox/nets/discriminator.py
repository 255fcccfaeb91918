"""A critic of shapes: was this distance map predicted for a labeled scan?"""

from __future__ import annotations

from torch import Tensor, nn


class Discriminator(nn.Module):
    """Four strided convolutions over distance map and image, global average, two logits.

    Each convolution is 4x4x4 with stride 2 and padding 1, followed by LeakyReLU 0.2 and, but for the last,
    dropout of whole channels; no normalisation. Map and image enter through convolutions of their own, whose
    outputs are added. With width 64 and one channel each: 11,020,290 parameters and 15.41 GMAC for a
    112x112x80 patch.

    Args:
        map_channels: channels of the distance map.
        image_channels: channels of the image.
        width: channels after the first convolution; they double at each of the three others.
        dropout: probability of dropping a channel.

    Source: Li et al., "Shape-aware semi-supervised 3D semantic segmentation", MICCAI 2020; the average there
        is over a fixed grid, here over any.
    """

    def __init__(
        self, *, map_channels: int, image_channels: int, width: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.map_input, self.image_input = _halve(map_channels, width), _halve(image_channels, width)
        layers: list[nn.Module] = []
        for level in range(3):
            channels = width * 2**level
            layers += [nn.LeakyReLU(0.2), nn.Dropout3d(dropout), _halve(channels, 2 * channels)]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.verdict = nn.Linear(8 * width, 2)

    def forward(self, distance: Tensor, image: Tensor) -> Tensor:
        """Maps (B, F, X, Y, Z) and images (B, C, X, Y, Z) -> logits (B, 2): unlabeled, labeled."""
        logits: Tensor = self.verdict(self.layers(self.map_input(distance) + self.image_input(image)))
        return logits


def _halve(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel_size=4, stride=2, padding=1)
