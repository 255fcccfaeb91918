"""Losses against a label."""

from __future__ import annotations

import torch
from torch import Tensor

from semivox.losses.reduction import masked_mean


def nll(log_probs: Tensor, label: Tensor) -> Tensor:
    """Negative log-probability of each voxel's class.

    Args:
        log_probs: (B, K, X, Y, Z).
        label: class indices (B, X, Y, Z), int64.

    Returns:
        (B, X, Y, Z), >= 0.
    """
    return -log_probs.gather(1, label.unsqueeze(1)).squeeze(1)


def onehot(label: Tensor, num_classes: int) -> Tensor:
    """Boolean (B, K, ...) from class indices (B, ...); unlike torch's, without a copy to the host."""
    classes = torch.arange(num_classes, device=label.device)
    return label.unsqueeze(1) == classes.view(1, -1, *(1,) * (label.ndim - 1))


def cross_entropy(log_probs: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of `nll` over batch and voxels, of the mask if there is one; 0 over nothing."""
    return masked_mean(nll(log_probs, label), mask)


def dice_loss(
    probs: Tensor,
    label: Tensor,
    *,
    mask: Tensor | None = None,
    background: bool = False,
    squared: bool = True,
    smooth: float = 1e-5,
) -> Tensor:
    """Soft Dice loss: 1 - (2 sum p y + e) / (sum p^2 + sum y^2 + e), or with sum p for sum p^2.

    The sums run over batch and voxels together; the loss is averaged over classes. An empty batch gives 0.

    Args:
        probs: (B, K, X, Y, Z) in 0..1.
        label: class indices (B, X, Y, Z).
        mask: boolean (B, X, Y, Z), the voxels that count; None: all.
        background: whether class 0 takes part in the average.
        squared: whether probabilities are squared in the denominator; published methods differ in it.
        smooth: e.
    """
    losses = []
    for index in range(0 if background else 1, probs.shape[1]):
        p, inside = probs[:, index], label == index
        if mask is not None:
            p, inside = p * mask, inside & mask
        overlap = (p * inside).sum()
        size = (p.square() if squared else p).sum() + inside.sum()
        losses.append(1.0 - (2.0 * overlap + smooth) / (size + smooth))
    return torch.stack(losses).mean()


def cross_entropy_dice(
    log_probs: Tensor, probs: Tensor, label: Tensor, mask: Tensor | None = None, *, background: bool = False
) -> Tensor:
    """Cross-entropy + Dice, the supervised term of most methods; `mask`, `background`: see `dice_loss`."""
    dice = dice_loss(probs, label, mask=mask, background=background)
    return cross_entropy(log_probs, label, mask) + dice
