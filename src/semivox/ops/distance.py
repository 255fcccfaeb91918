"""Euclidean distance maps, computed where the label is: nothing is copied to the host."""

from __future__ import annotations

import torch
from torch import Tensor

from semivox.ops.reduction import mean
from semivox.ops.supervised import onehot

_FAR = 2.0**22  # above any squared distance in a patch, and exact in float32 with one added


@torch.no_grad()
def squared_distance(mask: Tensor) -> Tensor:
    """Squared Euclidean distance in voxels from each voxel to the nearest one where `mask` is False.

    Exact: along one axis after the other, the smallest sum of what was found so far and the squared offset.
    That takes as many passes over the array as its sides are long, on any device.

    Args:
        mask: (..., X, Y, Z) boolean.

    Returns:
        (..., X, Y, Z) float32; at least 2^22 where there is no such voxel.
    """
    squares = torch.where(mask, _FAR, 0.0)
    for axis in (-3, -2, -1):
        before, side = squares, squares.shape[axis]
        squares = before.clone()
        for offset in range(1, side):
            rest = side - offset
            for here, there in ((offset, 0), (0, offset)):
                found = squares.narrow(axis, here, rest)
                torch.minimum(found, before.narrow(axis, there, rest) + float(offset**2), out=found)
    return squares


@torch.no_grad()
def signed_distance(label: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Normalised signed distance map of each foreground class in each patch.

    With d_in the distance of a voxel of the class to the nearest other voxel, and d_out that of another voxel
    to the nearest one of the class: d_out / max d_out outside, -d_in / max d_in inside, and 0 on the inner
    boundary, the voxels of the class with another voxel among their six neighbours. Where the class fills
    the patch the map is -1, where it is absent 0.

    Args:
        label: class indices (B, X, Y, Z).
        num_classes: K, background included.

    Returns:
        The maps (B, K - 1, X, Y, Z) float32, -1..1, and whether the class is present (B, K - 1) boolean.

    Source: Li et al., "Shape-aware semi-supervised 3D semantic segmentation", MICCAI 2020.
    """
    inside = onehot(label, num_classes)[:, 1:]
    if not inside.numel():
        return torch.zeros_like(inside, dtype=torch.float32), inside.new_zeros(inside.shape[:2])
    d_in, d_out = squared_distance(inside).sqrt(), squared_distance(~inside).sqrt()
    outer = d_out / d_out.amax(dim=(2, 3, 4), keepdim=True).clamp_min(1.0)
    inner = torch.where(d_in == 1.0, 0.0, d_in / d_in.amax(dim=(2, 3, 4), keepdim=True).clamp_min(1.0))
    present = inside.flatten(2).any(dim=2)
    return (outer - inner) * present[..., None, None, None], present


def distance_error(predicted: Tensor, distance: Tensor, counted: Tensor) -> Tensor:
    """Mean squared error of distance maps, over the voxels of the maps that count; 0 if none does.

    Args:
        predicted: (B, F, X, Y, Z).
        distance: (B, F, X, Y, Z).
        counted: (B, F) boolean.
    """
    each = (predicted - distance).square().flatten(2)
    return (each.sum(dim=2) * counted).sum() / (counted.sum() * each.shape[2]).clamp_min(1)


def level_set_mask(distance: Tensor, steepness: float) -> Tensor:
    """Soft mask of a signed distance map that is negative inside: sigmoid(-steepness * distance)."""
    return torch.sigmoid(-steepness * distance)


def level_set_consistency(probs: Tensor, distance: Tensor, steepness: float) -> Tensor:
    """Mean over samples, foreground classes and voxels of (soft mask of the distance map - probability)^2.

    Both sides carry gradient. That of the distance map vanishes, in float32 too, but for voxels within about
    10 / steepness of its zero level.

    Args:
        probs: (B, K, X, Y, Z), class 0 is background.
        distance: (B, K - 1, X, Y, Z), negative inside.
        steepness: of the sigmoid.

    Source: Luo et al., "Semi-supervised medical image segmentation through dual-task consistency", AAAI 2021.
    """
    return mean((level_set_mask(distance, steepness) - probs[:, 1:]).square())
