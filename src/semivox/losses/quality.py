"""How good a segmentation and its probabilities are, measured against a label."""

from __future__ import annotations

import torch
from torch import Tensor

from semivox.losses.prediction import most_probable


@torch.no_grad()
def confusion(truth: Tensor, label: Tensor, num_classes: int, valid: Tensor | None = None) -> Tensor:
    """Count voxels by true and by given class.

    Args:
        truth: class indices of any shape.
        label: class indices, same shape.
        num_classes: K.
        valid: boolean, same shape: which voxels to count; None: all.

    Returns:
        (K, K) int64 on the CPU; rows are the true classes.
    """
    pairs = (truth * num_classes + label).cpu()
    if valid is not None:
        pairs = pairs[valid.cpu()]
    return torch.bincount(pairs.flatten(), minlength=num_classes**2).view(num_classes, num_classes)


@torch.no_grad()
def reliability_bins(probs: Tensor, truth: Tensor, bins: int = 15, valid: Tensor | None = None) -> Tensor:
    """Sort voxels by confidence, the largest probability, into bins of equal width over (0, 1].

    Args:
        probs: (B, K, X, Y, Z).
        truth: class indices (B, X, Y, Z).
        bins: how many.
        valid: boolean (B, X, Y, Z): which voxels to count; None: all.

    Returns:
        (3, bins) float64 on the CPU: number of voxels, sum of their confidences, number of correct ones.
    """
    confidence, label = most_probable(probs)
    confidence, correct = confidence.cpu(), (label == truth).cpu()
    if valid is not None:
        confidence, correct = confidence[valid.cpu()], correct[valid.cpu()]
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1).flatten()
    rows = (torch.ones_like(confidence), confidence, correct)
    return torch.stack([torch.bincount(place, row.flatten().double(), minlength=bins) for row in rows])


def calibration_error(counts: Tensor) -> float:
    """Expected calibration error, sum_b n_b / n |accuracy_b - confidence_b|, of `reliability_bins`; 0..1.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3. NaN without voxels.
    """
    number, confidence, correct = counts
    return float((correct - confidence).abs().sum() / number.sum())
