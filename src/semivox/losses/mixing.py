"""Copy-paste of cuboids between two sets of patches, and losses on the parts of such a mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.supervised import masked_mean, mean, nll


def cuboid_mask(shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """Return a mask (X, Y, Z) that is False in one random cuboid and True around it.

    Args:
        shape: (X, Y, Z) voxels.
        share: side of the cuboid / side of the patch, 0..1, rounded down to voxels.
        generator: draws the first voxel, uniform over all positions except the last one, as published; the
            mask is on its device.
    """
    mask = torch.ones((), dtype=torch.bool, device=generator.device)
    for axis, side in enumerate(shape):
        size = int(share * side + 1e-6)
        first = torch.randint(max(side - size, 1), (1,), generator=generator, device=generator.device)
        place = torch.arange(side, device=generator.device) - first
        inside = (place >= 0) & (place < size)
        mask = mask & inside.view([-1 if other == axis else 1 for other in range(len(shape))])
    return ~mask


def random_cuboid_mask(
    shape: Sequence[int], shares: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Return a mask (X, Y, Z) that is False in a cuboid of random size and place, and True around it.

    Args:
        shape: (X, Y, Z) voxels.
        shares: smallest and largest side of the cuboid / side of the patch, 0..1; each side is drawn alone.
        generator: draws everything; the mask is on its device, and nothing is copied to the host.
    """
    low, high = shares
    draws = torch.rand((len(shape), 2), generator=generator, device=generator.device)
    mask = torch.ones((), dtype=torch.bool, device=generator.device)
    for axis, side in enumerate(shape):
        length = (low + (high - low) * draws[axis, 0]) * side
        first = draws[axis, 1] * (side - length)
        place = torch.arange(side, device=generator.device) + 0.5
        inside = (place >= first) & (place < first + length)
        mask = mask & inside.view([-1 if other == axis else 1 for other in range(len(shape))])
    return ~mask


def exchange_masks(count: int, mask: Tensor) -> Tensor:
    """Take `mask` (X, Y, Z) for even samples and its complement for odd ones: (count, X, Y, Z) boolean."""
    odd = torch.arange(count, device=mask.device).view(-1, 1, 1, 1) % 2 == 1
    return mask ^ odd


def paste(outer: Tensor, inner: Tensor, mask: Tensor) -> Tensor:
    """Take `outer` where the mask (X, Y, Z) holds, `inner` elsewhere; both (B, ..., X, Y, Z)."""
    return torch.where(mask, outer, inner)


def halves(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return samples 0 to `count` - 1 and the next `count` ones, starting again after the last (B >= 1)."""
    order = torch.arange(2 * count, device=values.device) % len(values)
    return values[order[:count]], values[order[count:]]


def linear_dice_of_samples(
    probs: Tensor, label: Tensor, mask: Tensor | None = None, *, smooth: float = 1e-5
) -> Tensor:
    """Average the Dice loss of each sample and class, 1 - (2 sum m p y + e) / (sum m (p + y) + e).

    Args:
        probs: (B, K, X, Y, Z).
        label: class indices (B, X, Y, Z).
        mask: m, boolean and of a shape that extends to the label's; None: all voxels.
        smooth: e.

    Returns:
        The mean over samples and all classes, background included; 0 for an empty batch.
    """
    losses = []
    for index in range(probs.shape[1]):
        p, inside = probs[:, index], label == index
        if mask is not None:
            p, inside = p * mask, inside & mask
        overlap = (p * inside).flatten(1).sum(dim=1)
        size = p.flatten(1).sum(dim=1) + inside.flatten(1).sum(dim=1)
        losses.append(1.0 - (2.0 * overlap + smooth) / (size + smooth))
    return mean(torch.stack(losses))


def region_loss(prediction: Prediction, label: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute (cross-entropy + Dice) / 2 over the voxels where the mask holds.

    Args:
        prediction: of B samples.
        label: class indices (B, X, Y, Z).
        mask: (X, Y, Z) or (B, X, Y, Z) boolean; None: all voxels.
    """
    losses = nll(prediction.log_probs, label)
    entropy = masked_mean(losses, None if mask is None else mask.expand_as(losses))
    return 0.5 * (entropy + linear_dice_of_samples(prediction.probs, label, mask))
