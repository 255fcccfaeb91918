"""Class prototypes of single samples, and cosine scores of voxels against them.

Features are (B, D, N), N the voxels of a sample; unlike those of `prototypes`, a prototype is a weighted mean
of features of any length, one for each sample and class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semivox.ops.norms import inverse_norm


def weighted_prototypes(features: Tensor, weights: Tensor) -> Tensor:
    """Mean feature of each sample and class: sum_v w_c(v) f(v) / (sum_v w_c(v) + 1e-5).

    Args:
        features: (B, D, N).
        weights: (B, K, N) >= 0, how much a voxel stands for a class.

    Returns:
        (B, K, D); zeros for a class without weight.

    Source: Xu et al., "Cyclic prototype consistency learning", JBHI 2022.
    """
    sums = torch.matmul(weights, features.transpose(1, 2))
    return sums / (weights.sum(dim=2, keepdim=True) + 1e-5)


def cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of each voxel's feature with each prototype of its sample; 0 where either has no direction.

    Args:
        features: (B, D, N).
        prototypes: (B, K, D).

    Returns:
        (B, K, N), -1..1.
    """
    directions = prototypes * inverse_norm(prototypes.transpose(1, 2)).unsqueeze(2)
    return torch.matmul(directions, features) * inverse_norm(features).unsqueeze(1)


def partners(tensor: Tensor, count: int) -> Tensor:
    """Give each of `count` samples of one stream a sample of the other: sample b gets b modulo B.

    Args:
        tensor: (B, ...) of the other stream, B > 0.
        count: samples of the one.

    Returns:
        (count, ...).
    """
    return tensor[torch.arange(count, device=tensor.device) % len(tensor)]
