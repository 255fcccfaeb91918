"""Class prototypes in feature space: unit vectors, compared by Euclidean distance.

Features are (B, D, N), N the voxels of a sample, as the network gives them. They are never normalised as a
whole: `inverse_norm` (B, N) is multiplied into weights or inner products, which saves a copy of all channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semivox.ops.reduction import masked_mean

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


def pull_and_spread(
    features: Tensor,
    label: Tensor,
    members: Tensor,
    candidates: Tensor,
    *,
    fraction: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Pull random candidates to the prototype of their class, and tell how far prototypes are apart.

    Args:
        features: (B, D, N).
        label: class of each voxel, (B, N) int64.
        members: (B, K, N) boolean, the voxels of which the prototypes are made.
        candidates: (B, K, N) boolean, the voxels that may be pulled, one-hot in `label`.
        fraction: of the candidates that are drawn, see `draw`.
        generator: on the same device.

    Returns:
        Sum over classes of the mean distance to the fixed prototype; mean distance of live prototypes.
    """
    scale = inverse_norm(features)
    prototypes, present = class_prototypes(features, scale, members), members.any(dim=2).any(dim=0)
    distances = distances_to_own(features, scale, prototypes.detach(), label)
    chosen = draw(candidates, fraction, generator)
    return pull(distances, chosen, present), mean_pair_distance(prototypes, present)
