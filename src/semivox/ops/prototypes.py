"""Class prototypes in feature space: unit vectors, compared by Euclidean distance.

Features are (B, D, N), N the voxels of a sample, as the network gives them. They are never normalised as a
whole: `inverse_norm` (B, N) is multiplied into weights or inner products, which saves a copy of all channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from semivox.ops.reduction import both, masked_mean
from semivox.ops.supervised import onehot

_TINY = 1e-12


def inverse_norm(features: Tensor) -> Tensor:
    """1 / ||f|| of each voxel, (B, N); 0 for a vector without direction (||f||^2 <= 1e-12)."""
    squares = features.square().sum(dim=1)
    return torch.where(squares > _TINY, squares.clamp_min(_TINY).rsqrt(), 0.0)


def class_prototypes(features: Tensor, scale: Tensor, members: Tensor) -> Tensor:
    """Normalised mean of the unit features of each class, with gradient.

    Args:
        features: (B, D, N).
        scale: `inverse_norm` of them, (B, N).
        members: (B, K, N) boolean, which voxels stand for which class.

    Returns:
        (K, D) unit vectors; zeros for a class without members.
    """
    weights = members * scale.unsqueeze(1)
    sums = torch.matmul(weights, features.transpose(1, 2)).sum(dim=0)
    return sums * inverse_norm(sums.T.unsqueeze(0)).squeeze(0).unsqueeze(1)


def distances_to_own(features: Tensor, scale: Tensor, prototypes: Tensor, label: Tensor) -> Tensor:
    """||f / ||f|| - mu_c|| of each voxel to the prototype of its class c, (B, N), 0..2.

    From the inner product: ||f - mu||^2 = 2 - 2 f.mu for unit vectors. At distance 0 the gradient is 0.

    Args:
        features: (B, D, N).
        scale: `inverse_norm` of them, (B, N).
        prototypes: (K, D) unit vectors.
        label: (B, N) int64.
    """
    cosines = torch.matmul(prototypes, features).gather(1, label.unsqueeze(1)).squeeze(1) * scale
    lengths = (scale.detach() > 0).to(cosines.dtype) + 1.0
    return safe_sqrt(lengths - 2.0 * cosines)


def pull(distances: Tensor, chosen: Tensor, present: Tensor) -> Tensor:
    """Sum over classes of the mean distance of the chosen voxels; classes without prototype or voxels add 0.

    Args:
        distances: (B, N), see `distances_to_own`.
        chosen: (B, K, N) boolean, see `draw`.
        present: (K,) boolean, which classes have a prototype.
    """
    sums = (distances.unsqueeze(1) * chosen).sum(dim=(0, 2))
    return (sums / chosen.sum(dim=(0, 2)).clamp_min(1) * present).sum()


def mean_pair_distance(prototypes: Tensor, present: Tensor) -> Tensor:
    """Mean distance between the prototypes of two different classes; 0 if fewer than two are present.

    Args:
        prototypes: (K, D).
        present: (K,) boolean.
    """
    squares = (prototypes.unsqueeze(1) - prototypes.unsqueeze(0)).square().sum(dim=2)
    pairs = (present.unsqueeze(1) & present.unsqueeze(0)).triu(diagonal=1)
    return masked_mean(safe_sqrt(squares), pairs)


def safe_sqrt(values: Tensor) -> Tensor:
    """Square root with gradient 0 instead of infinity at (and below) 0."""
    positive = values > _TINY
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


@torch.no_grad()
def draw(candidates: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Draw each candidate with probability `fraction`; at least one of each class that has candidates.

    Args:
        candidates: (B, K, N) boolean.
        fraction: 0..1.
        generator: on the same device.

    Returns:
        (B, K, N) boolean, part of `candidates`.
    """
    if not candidates.numel():
        return candidates
    batch, _, voxels = candidates.shape
    lots = torch.rand(batch, 1, voxels, generator=generator, device=candidates.device)
    lowest = torch.where(candidates, lots, 2.0).amin(dim=(0, 2), keepdim=True)
    return candidates & ((lots < fraction) | (lots == lowest))


class PrototypeTerms(NamedTuple):
    """What `prototype_terms` returns."""

    pull: Tensor  # sum over classes of the mean distance of the drawn voxels to their fixed prototype
    apart: Tensor  # mean distance between live prototypes
    sizes: Tensor  # (K,) reliable voxels of each class


def prototype_terms(
    features: Tensor,
    label: Tensor,
    reliable: Tensor,
    *,
    num_classes: int,
    fraction: float,
    generator: torch.Generator,
    query_label: Tensor | None = None,
    counted: Tensor | None = None,
) -> PrototypeTerms:
    """Make prototypes of the reliable voxels and measure how far some of the others are from theirs.

    A class without reliable voxels has no prototype and adds nothing to either term.

    Args:
        features: (B, D, N).
        label: class of each voxel, (B, N) int64.
        reliable: (B, N) boolean.
        num_classes: K, background included.
        fraction: of the voxels that are not reliable, see `draw`.
        generator: on the same device.
        query_label: class of the other voxels, where that is not `label`, (B, N) int64.
        counted: (B, N) boolean, voxels that may be drawn; None: all that are not reliable.
    """
    sure, others = reliable.unsqueeze(1), label if query_label is None else query_label
    members = onehot(label, num_classes) & sure
    sizes = members.sum(dim=(0, 2))
    scale = inverse_norm(features)
    prototypes = class_prototypes(features, scale, members)
    distances = distances_to_own(features, scale, prototypes.detach(), others)
    candidates = both(~reliable, counted).unsqueeze(1) & onehot(others, num_classes)
    chosen = draw(candidates, fraction, generator)
    return PrototypeTerms(
        pull(distances, chosen, sizes > 0), mean_pair_distance(prototypes, sizes > 0), sizes
    )
