"""Losses against a label, and means that are 0 for an empty input.

In this room, unless said otherwise: probabilities and log-probabilities are (B, K, X, Y, Z), class 0 is the
background; labels are class indices (B, X, Y, Z) int64; masks are boolean, shaped as labels, and None holds
everywhere. Nothing copies a value to the host, so a GPU never waits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean(values: Tensor) -> Tensor:
    """Average all elements; return 0 for a tensor without elements."""
    return values.sum() / max(values.numel(), 1)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average `values` where the `mask` of the same shape holds; 0 if nowhere."""
    if mask is None:
        return mean(values)
    return (values * mask).sum() / mask.sum().clamp_min(1)


def both(mask: Tensor, other: Tensor | None) -> Tensor:
    """Combine two masks by "and"."""
    return mask if other is None else mask & other


def onehot(label: Tensor, num_classes: int) -> Tensor:
    """Turn class indices (B, ...) into boolean (B, K, ...); unlike torch's, without a copy to the host."""
    classes = torch.arange(num_classes, device=label.device)
    return label.unsqueeze(1) == classes.view(1, -1, *(1,) * (label.ndim - 1))


def nll(log_probs: Tensor, label: Tensor) -> Tensor:
    """Return the negative log-probability of each voxel's class, (B, X, Y, Z), >= 0."""
    return -log_probs.gather(1, label.unsqueeze(1)).squeeze(1)


def cross_entropy(log_probs: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average `nll` over the voxels of the mask."""
    return masked_mean(nll(log_probs, label), mask)


def dice_loss(
    probs: Tensor,
    label: Tensor,
    *,
    mask: Tensor | None = None,
    background: bool = False,
    squared: bool = True,
    each: bool = False,
    smooth: float = 1e-5,
) -> Tensor:
    """Compute the soft Dice loss 1 - (2 sum p y + e) / (sum p^2 + sum y^2 + e), or with sum p for sum p^2.

    The sums run over batch and voxels together; the loss is averaged over classes. An empty batch gives 0.

    Args:
        probs: p.
        label: y, in its one-hot form.
        mask: voxels that count; any shape that extends to the label's.
        background: whether class 0 takes part in the average.
        squared: whether probabilities are squared in the denominator; published methods differ in it.
        each: sum over each sample alone; the loss is averaged over samples, too.
        smooth: e.
    """

    def total(values: Tensor) -> Tensor:
        return values.flatten(1).sum(dim=1) if each else values.sum()

    losses = []
    for index in range(0 if background else 1, probs.shape[1]):
        p, inside = probs[:, index], label == index
        if mask is not None:
            p, inside = p * mask, inside & mask
        overlap, size = total(p * inside), total(p.square() if squared else p) + total(inside)
        losses.append(1.0 - (2.0 * overlap + smooth) / (size + smooth))
    return mean(torch.stack(losses)) if each else torch.stack(losses).mean()


def cross_entropy_dice(
    log_probs: Tensor, probs: Tensor, label: Tensor, mask: Tensor | None = None, *, background: bool = False
) -> Tensor:
    """Add cross-entropy and Dice, the supervised term of most methods; see `dice_loss`."""
    dice = dice_loss(probs, label, mask=mask, background=background)
    return cross_entropy(log_probs, label, mask) + dice
