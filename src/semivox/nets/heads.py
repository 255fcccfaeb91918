"""What is put behind or beside a network: further decoders, heads on coarser levels, a discriminator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from semivox.nets import Triple
from semivox.nets.blocks import UpKind, enlarge, initialise
from semivox.nets.network import Segmenter, make_head
from semivox.nets.published import LEVEL_DROPOUT, VNetDecoder


class Decoded(NamedTuple):
    """What one decoder makes of an image."""

    features: Tensor  # (B, width, X, Y, Z), after the head's dropout
    logits: Tensor  # (B, K, X, Y, Z)


class MultiDecoder(nn.Module):
    """A segmenter and further decoders, which up-sample differently, with heads of their own.

    The channels that are dropped at the coarsest level are the same for all decoders; those dropped before
    the heads are drawn for each. With a V-Net of width 16, one channel and two classes, one further decoder
    makes 12,347,716 parameters, two make 15,246,566. `others`: how further decoders up-sample, see `Up`.

    Source: Wu et al., "Mutual consistency training", MICCAI 2021.
    """

    def __init__(self, first: Segmenter, others: Sequence[UpKind]) -> None:
        super().__init__()
        self.first, self.in_channels = first, first.in_channels
        self.decoders = nn.ModuleList(VNetDecoder(first.spec, kind) for kind in others)
        self.heads = nn.ModuleList(make_head(first.spec, first.head[0].p) for _ in others)
        self.decoders.apply(initialise)
        self.heads.apply(initialise)

    def forward(self, image: Tensor) -> list[Decoded]:
        """(B, C, X, Y, Z) -> the output of each decoder, the first one's first."""
        levels = self.first.encode(image)
        decoders, heads = (self.first.decoder, *self.decoders), (self.first.head, *self.heads)
        outputs = []
        for decoder, (dropout, convolution) in zip(decoders, heads, strict=True):
            features = dropout(decoder(levels))
            outputs.append(Decoded(features, convolution(features)))
        return outputs


class PyramidHeads(nn.Module):
    """One 1x1x1 convolution for each decoder level but the finest, which has the network's own head.

    `dropout` is the probability of dropping a channel of the coarsest level before its head, finer ones have
    `LEVEL_DROPOUT` of it; 0 for a network whose levels come with channels dropped.
    """

    def __init__(self, net: Segmenter, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.factors = [net.factor(level) for level in range(1, len(net.strides))]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Dropout3d(dropout * LEVEL_DROPOUT[level]),
                nn.Conv3d(net.width * 2**level, net.num_classes, kernel_size=1),
            )
            for level in range(1, len(net.strides))
        )
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn the coarser maps of `Segmenter.pyramid` into logits (B, K, X, Y, Z) at full resolution."""
        levels = zip(self.heads, maps, self.factors, strict=True)
        return [enlarge(head(values), factor) for head, values, factor in levels]


class Discriminator(nn.Module):
    """Guess whether a distance map was predicted for a labeled scan.

    Four convolutions 4x4x4 with stride 2 and padding 1, each followed by LeakyReLU 0.2 and, but for the last,
    dropout of whole channels; global average, two logits; no normalisation. Map and image enter through
    convolutions of their own, whose outputs are added. `width` is that of these; it doubles at each of the
    three others. With width 64 and one channel each: 11,020,290 parameters and 15.41 GMAC for
    a 112x112x80 patch.

    Source: Li et al., "Shape-aware semi-supervised 3D semantic segmentation", MICCAI 2020; the average there
        is over a fixed grid, here over any.
    """

    divisor: Triple = (16, 16, 16)  # of the sides of a patch

    def __init__(
        self, *, map_channels: int, image_channels: int, width: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        halve = partial(nn.Conv3d, kernel_size=4, stride=2, padding=1)
        self.map_input, self.image_input = halve(map_channels, width), halve(image_channels, width)
        layers: list[nn.Module] = []
        for channels in (width, 2 * width, 4 * width):
            layers += [nn.LeakyReLU(0.2), nn.Dropout3d(dropout), halve(channels, 2 * channels)]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.verdict = nn.Linear(8 * width, 2)

    def forward(self, distance: Tensor, image: Tensor) -> Tensor:
        """Maps (B, F, X, Y, Z) and images (B, C, X, Y, Z) -> logits (B, 2): unlabeled, labeled."""
        logits: Tensor = self.verdict(self.layers(self.map_input(distance) + self.image_input(image)))
        return logits
