"""What the losses need of a network's output, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True)
class Prediction:
    """Log-softmax, softmax and most probable class of a batch; a slice takes samples.

    Args:
        log_probs: (B, K, X, Y, Z), at least float32.
        probs: (B, K, X, Y, Z).
        label: (B, X, Y, Z) int64, without gradient as all indices.
    """

    log_probs: Tensor
    probs: Tensor
    label: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> Self:
        """Convert logits (B, K, X, Y, Z) of any floating type."""
        log_probs = torch.log_softmax(widen(logits), dim=1)
        return cls(log_probs, log_probs.exp(), log_probs.argmax(dim=1))

    def __getitem__(self, samples: slice) -> Self:
        """Take the samples of a slice, attached to the same graph."""
        return type(self)(self.log_probs[samples], self.probs[samples], self.label[samples])

    @property
    def num_classes(self) -> int:
        """K, background included."""
        return self.probs.shape[1]

    def entropy(self) -> Tensor:
        """-sum_c p_c log p_c in nats, (B, X, Y, Z), 0..log K, without gradient."""
        with torch.no_grad():
            return -(self.probs * self.log_probs).sum(dim=1)
