"""What the losses need of a network's output, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def log_softmax(logits: Tensor) -> Tensor:
    """Compute the log-softmax over the classes (B, K, ...): at least float32, contiguous."""
    return torch.log_softmax(widen(logits).contiguous(), dim=1)


@torch.no_grad()
def most_probable(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Find the largest value over the classes and its index, the first one of a tie: both (B, ...).

    One comparison a class; `max(dim=1)` does not promise the first of a tie on every device.
    """
    best, index = probs[:, 0], torch.zeros_like(probs[:, 0], dtype=torch.int64)
    for position in range(1, probs.shape[1]):
        better = probs[:, position] > best
        index = torch.where(better, position, index)
        best = torch.maximum(best, probs[:, position])
    return best, index


def winner(probs: Tensor) -> Tensor:
    """Return the most probable class of (K, ...), int64; many times as fast as `argmax` over few classes."""
    return most_probable(probs.unsqueeze(0))[1].squeeze(0)


@dataclass(frozen=True)
class Prediction:
    """What the losses read of a batch's logits; a slice takes samples.

    Args:
        log_probs: log-softmax (B, K, X, Y, Z), at least float32.
        probs: softmax (B, K, X, Y, Z).
        confidence: probability of the most probable class (B, X, Y, Z), without gradient.
        label: the most probable class (B, X, Y, Z), int64.
    """

    log_probs: Tensor
    probs: Tensor
    confidence: Tensor
    label: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> Self:
        """Convert logits of any floating type."""
        log_probs = log_softmax(logits)
        probs = log_probs.exp()
        return cls(log_probs, probs, *most_probable(probs))

    def __getitem__(self, samples: slice) -> Self:
        """Take samples, attached to the same graph."""
        return type(self)(*(values[samples] for values in vars(self).values()))

    def joined(self, other: Self) -> Self:
        """Concatenate these samples and those of `other`."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return type(self)(*(torch.cat(pair) for pair in pairs))

    def detach(self) -> Self:
        """Return the same values without gradient."""
        return type(self)(self.log_probs.detach(), self.probs.detach(), self.confidence, self.label)

    @property
    def num_classes(self) -> int:
        """K, background included."""
        return self.probs.shape[1]

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """Compute -sum_c p_c log p_c in nats, (B, X, Y, Z), 0..log K, without gradient."""
        return -(self.probs * self.log_probs).sum(dim=1)
