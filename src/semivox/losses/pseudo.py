"""Labels made from predictions; nothing here carries a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from semivox.losses.prediction import Prediction, certain_logits, most_probable
from semivox.losses.reduction import both
from semivox.losses.uncertainty import percentile


@dataclass(frozen=True)
class Teaching:
    """What one network says about unlabeled patches, and where it is sure of it; without gradient.

    Args:
        prediction: of the patches that are taught.
        entropy: of it, (B, X, Y, Z), nats.
        threshold: percentile of the entropy over all unlabeled voxels, a scalar.
        low: entropy <= threshold where anything is taught, boolean (B, X, Y, Z).
        taught: where anything is taught, boolean (B, X, Y, Z); None: everywhere.
    """

    prediction: Prediction
    entropy: Tensor
    threshold: Tensor
    low: Tensor
    taught: Tensor | None = None

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        alpha: float,
        truth: Tensor | None = None,
        known: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> Self:
        """Measure the entropy, and then put the truth where it is known.

        Args:
            prediction: of whole unlabeled patches.
            alpha: percentile, 0..100.
            truth: class indices (B, X, Y, Z), if there are any to put in.
            known: where, boolean (B, X, Y, Z).
            counted: where there is truth, boolean (B, X, Y, Z), None: everywhere; a voxel that is known
                without that teaches nothing.
        """
        prediction = prediction.detach()
        entropy = prediction.entropy()
        threshold = percentile(entropy, alpha)
        if truth is not None and known is not None:
            certain = certain_logits(truth, prediction.num_classes)
            prediction = Prediction.of(torch.where(known.unsqueeze(1), certain, prediction.log_probs))
            entropy = torch.where(known, 0.0, entropy)
        taught = None if known is None or counted is None else ~known | counted
        return cls(prediction, entropy, threshold, both(entropy <= threshold, taught), taught)


@torch.no_grad()
def foreground_label(probs: Tensor, threshold: float) -> Tensor:
    """Most probable foreground class where its probability exceeds `threshold`, else background.

    Args:
        probs: (B, K, X, Y, Z), class 0 is background.
        threshold: 0..1.

    Returns:
        (B, X, Y, Z) int64.
    """
    best, index = most_probable(probs[:, 1:])
    return torch.where(best > threshold, index + 1, 0)


@torch.no_grad()
def confident_foreground(prediction: Prediction, threshold: float) -> Tensor:
    """Keep the predicted class where it is foreground with a probability of at least `threshold`, else 0.

    Returns:
        (B, X, Y, Z) int64.
    """
    return torch.where(prediction.confidence >= threshold, prediction.label, 0)


@torch.no_grad()
def joint_label(
    label_a: Tensor,
    label_b: Tensor,
    entropy_a: Tensor,
    entropy_b: Tensor,
    rule: Literal["union", "lower_entropy"],
) -> Tensor:
    """One label from two: where they agree, that; where not, what `rule` says.

    Args:
        label_a: class indices of A, (B, X, Y, Z).
        label_b: class indices of B.
        entropy_a: entropy of A, (B, X, Y, Z); a tie counts as the lower one.
        entropy_b: entropy of B.
        rule: union: foreground wins over background, the lower entropy between two foreground classes;
            lower_entropy: the lower entropy always.
    """
    surer = torch.where(entropy_a <= entropy_b, label_a, label_b)
    if rule == "lower_entropy":
        return surer
    both_foreground = (label_a > 0) & (label_b > 0)
    return torch.where(both_foreground, surer, torch.maximum(label_a, label_b))
