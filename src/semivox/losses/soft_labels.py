"""Losses against shares of classes: labels averaged to a coarser grid, and soft pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

SCALES = (1.0, 0.5, 0.25)  # weights of deep supervision, fine to coarse, before they are brought to sum 1


def sharpened(probs: Tensor, temperature: float) -> Tensor:
    """Sharpen probabilities (B, K, X, Y, Z): p^(1 / T), brought to sum 1 over the classes.

    Source: Berthelot et al., MixMatch, arXiv 1905.02249, eq. 7.
    """
    powers = probs.clamp_min(1e-6) ** (1.0 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def soft_cross_entropy_dice(logits: Tensor, shares: Tensor, weight: Tensor) -> Tensor:
    """Compute cross-entropy + Dice of each sample against shares of the classes.

    With voxels v, weights w and foreground classes k > 0, the terms of one sample are
    sum_v w sum_k -y log p / mean over samples of sum_v w, and the mean over k of
    1 - (2 sum_v w p y + 1) / (sum_v w (p + y) + 1).

    Args:
        logits: of p, (B, K, X, Y, Z).
        shares: y, alike, in 0..1, summing to 1 over the classes.
        weight: w, (B, X, Y, Z), >= 0; 0 leaves a voxel out.

    Returns:
        (B,) float32; the mean over the samples is the loss of the batch.
    """
    log_probs = torch.log_softmax(logits.float(), dim=1).flatten(2)  # (B, K, V)
    probs, weight = log_probs.exp(), weight.flatten(1).unsqueeze(1)  # weight (B, 1, V)
    taught = weight * shares.flatten(2)
    entropies = -(taught * log_probs).sum(dim=(1, 2))
    overlap, size = (taught * probs).sum(dim=2), (weight * probs).sum(dim=2) + taught.sum(dim=2)
    dice = 1.0 - (2.0 * overlap[:, 1:] + 1.0) / (size[:, 1:] + 1.0)  # slices of the maps would be copied
    per_sample = weight.sum() / max(len(weight), 1)
    return entropies / per_sample.clamp_min(1.0) + dice.mean(dim=1)


def averaged(shares: Tensor, weight: Tensor, sides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Average shares (B, K, X, Y, Z) by their weights (B, X, Y, Z), and these, to `sides` voxels."""
    x, y, z = (fine // side for fine, side in zip(shares.shape[2:], sides, strict=True))
    if (x, y, z) == (1, 1, 1):
        return shares, weight
    shares, weight = shares * weight.unsqueeze(1), weight.unsqueeze(1)
    shares, weight = avg_pool3d(shares, (x, y, z)), avg_pool3d(weight, (x, y, z))
    return shares / weight.clamp_min(1e-6), weight.squeeze(1)


def deep_loss(scales: Sequence[Tensor], shares: Tensor, weight: Tensor) -> Tensor:
    """Average `soft_cross_entropy_dice` over the scales of deep supervision, weighted 1, 1/2, 1/4.

    The scales are logits, fine to coarse, the first on the grid of `shares`, each dividing the one before;
    shares and weights are averaged to the grid of each. Returns (B,) float32.
    """
    total = shares.new_zeros(len(shares), dtype=torch.float32)
    for logits, share in zip(scales, SCALES, strict=False):
        shares, weight = averaged(shares, weight, logits.shape[2:])
        total = total + share * soft_cross_entropy_dice(logits, shares, weight)
    return total / sum(SCALES[: len(scales)])
