"""A network with several decoders behind one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from semivox.nets.blocks import Decoder, Segmenter, UpKind, initialise, make_head


class Decoded(NamedTuple):
    """What one decoder makes of an image."""

    features: Tensor  # (B, width, X, Y, Z), after the head's dropout
    logits: Tensor  # (B, K, X, Y, Z)


class MultiDecoder(nn.Module):
    """A segmenter and further decoders, which up-sample differently, with heads of their own.

    The channels that are dropped at the coarsest level are the same for all decoders; those dropped before
    the heads are drawn for each. With a V-Net of width 16, one channel and two classes, one further decoder
    gives 12,347,716 parameters, two give 15,246,566.

    Args:
        first: the segmenter with the first decoder.
        others: how the further decoders up-sample, see `Up`.

    Source: Wu et al., "Mutual consistency training", MICCAI 2021.
    """

    def __init__(self, first: Segmenter, others: Sequence[UpKind]) -> None:
        super().__init__()
        self.first, self.in_channels = first, first.in_channels
        self.decoders = nn.ModuleList(Decoder(first.width, first.norm, up=kind) for kind in others)
        self.heads = nn.ModuleList(
            make_head(first.width, first.num_classes, first.head_dropout) for _ in others
        )
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
