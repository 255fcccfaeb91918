"""Euclidean distance maps, computed where the label is: nothing is copied to the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from semivox.losses.supervised import masked_mean, mean, onehot

_FAR = 2.0**22  # above any squared distance in a patch, and exact in float32 with one added
_REACH = 8.0  # of the boundary loss


@torch.no_grad()
def squared_distance(
    mask: Tensor, spacing: Sequence[float] = (1.0, 1.0, 1.0), reach: float = math.inf
) -> Tensor:
    """Compute the squared distance from each voxel to the nearest one where `mask` is False.

    Exact: along one axis after the other, the smallest sum of what was found so far and the squared offset.
    That takes as many passes over the array as its sides are long, or `reach`, on any device.

    Args:
        mask: (..., X, Y, Z) boolean.
        spacing: of neighbouring voxels along each axis.
        reach: longer distances count as this one.

    Returns:
        (..., X, Y, Z) float32; where there is no such voxel, `reach` squared, or at least 2^22.
    """
    squares = torch.where(mask, min(_FAR, reach**2), 0.0)
    for axis, apart in zip((-3, -2, -1), spacing, strict=True):
        before, side = squares, squares.shape[axis]
        squares = before.clone()
        for offset in range(1, int(min(side - 1, reach // apart)) + 1):
            rest = side - offset
            for here, there in ((offset, 0), (0, offset)):
                found = squares.narrow(axis, here, rest)
                torch.minimum(found, before.narrow(axis, there, rest) + (offset * apart) ** 2, out=found)
    return squares


def _distances(
    label: Tensor, num_classes: int, valid: Tensor | None, *how: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Find the voxels in each foreground class, and maybe in it; squared d_in and d_out, and where sure.

    A distance is sure (None: everywhere) where no voxel of unknown class is nearer. `how`: spacing and reach.
    """
    inside = onehot(label, num_classes)[:, 1:]
    if valid is None:
        return inside, inside, squared_distance(inside, *how), squared_distance(~inside, *how), None
    sure = valid.unsqueeze(1)
    inside, maybe = inside & sure, inside | ~sure
    d_in, d_out = squared_distance(maybe, *how), squared_distance(~inside, *how)
    known = sure & (d_in + d_out <= squared_distance(sure, *how))  # one of the two is 0 at a known voxel
    return inside, maybe, d_in, d_out, known


class SignedDistance(NamedTuple):
    """Signed distance maps, and where they can be relied on."""

    map: Tensor  # (B, K - 1, X, Y, Z) float32, -1..1
    present: Tensor  # (B, K - 1) boolean, whether the patch has the class
    known: Tensor | None  # (B, K - 1, X, Y, Z) boolean, where the map is sure; None: everywhere


@torch.no_grad()
def signed_distance(label: Tensor, num_classes: int, valid: Tensor | None = None) -> SignedDistance:
    """Compute the normalised signed distance map of each foreground class in each patch.

    With d_in the distance of a voxel of the class to the nearest other voxel, and d_out that of another voxel
    to the nearest one of the class: d_out / max d_out outside, -d_in / max d_in inside, and 0 on the inner
    boundary, the voxels of the class with another voxel among their six neighbours. Where the class fills
    the patch the map is -1, where it is absent 0.

    With voxels whose class is not known, distances are those to the nearest voxel that is; only voxels whose
    distance is sure scale the map. `valid` are the voxels whose class is known.

    Source: Li et al., "Shape-aware semi-supervised 3D semantic segmentation", MICCAI 2020.
    """
    inside, _, d_in, d_out, known = _distances(label, num_classes, valid)
    if known is not None:
        d_in, d_out = d_in * known, d_out * known
    d_in, d_out = d_in.sqrt(), d_out.sqrt()
    outer = d_out / d_out.amax(dim=(2, 3, 4), keepdim=True).clamp_min(1.0)
    inner = torch.where(d_in == 1.0, 0.0, d_in / d_in.amax(dim=(2, 3, 4), keepdim=True).clamp_min(1.0))
    present = inside.flatten(2).any(dim=2)
    return SignedDistance((outer - inner) * present[..., None, None, None], present, known)


@torch.no_grad()
def boundary_distance(
    label: Tensor, num_classes: int, valid: Tensor | None = None, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[Tensor, Tensor | None]:
    """Compute how far each voxel is from the boundary of each foreground class, for `boundary_loss`.

    d_out outside and 1 - d_in inside, see `signed_distance`, but not normalised: 0 on the inner boundary. A
    class that is absent, or fills the patch, has no boundary there and 0 everywhere. Ours: d_in and d_out
    above 8 count as 8, which takes a fraction of the time. `spacing`, of neighbouring voxels along each axis,
    is in units of the smallest.

    Returns:
        The map (B, K - 1, X, Y, Z) float32, and the boolean voxels of it that count: those whose distance is
        sure; None: all.
    """
    inside, maybe, d_in, d_out, known = _distances(label, num_classes, valid, spacing, _REACH)
    found = (inside.flatten(2).any(dim=2) & ~maybe.flatten(2).all(dim=2))[..., None, None, None]
    signed = torch.where(inside, 1.0 - d_in.sqrt(), d_out.sqrt())
    return torch.where(found, signed, 0.0), known


def boundary_loss(
    probs: Tensor, label: Tensor, valid: Tensor | None = None, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> Tensor:
    """Average probability times distance to the boundary over samples, foreground classes and voxels.

    Probability far outside a class costs most, deep inside it gains most. Negative for a good prediction.
    See `boundary_distance` for `valid` and `spacing`.

    Source: Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL 2019, arXiv 1812.07032.
    """
    distance, counted = boundary_distance(label, probs.shape[1], valid, spacing)
    return masked_mean(probs[:, 1:] * distance, counted)


def distance_error(predicted: Tensor, distance: Tensor, use: Tensor, known: Tensor | None = None) -> Tensor:
    """Average the squared error of distance maps (B, F, X, Y, Z) over those in use (B, F); 0 for none.

    `known` (B, F, X, Y, Z) boolean: which voxels of them count; None: all.
    """
    if known is not None:
        return masked_mean((predicted - distance).square(), known & use[..., None, None, None])
    each = (predicted - distance).square().flatten(2)
    return (each.sum(dim=2) * use).sum() / (use.sum() * each.shape[2]).clamp_min(1)


def level_set_consistency(probs: Tensor, distance: Tensor, steepness: float) -> Tensor:
    """Average (sigmoid(-steepness * distance) - probability)^2 over samples, foreground classes and voxels.

    Both sides carry gradient. That of the distance map vanishes, in float32 too, but for voxels within about
    10 / steepness of its zero level. `distance` (B, K - 1, X, Y, Z) is negative inside.

    Source: Luo et al., "Semi-supervised medical image segmentation through dual-task consistency", AAAI 2021.
    """
    return mean((torch.sigmoid(-steepness * distance) - probs[:, 1:]).square())
