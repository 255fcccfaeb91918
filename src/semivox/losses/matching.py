"""Class prototypes of single samples, and cosine scores of voxels against them.

Features are (B, D, N), N the voxels of a sample; unlike those of `prototypes`, a prototype is a weighted mean
of features of any length, one for each sample and class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from semivox.losses.norms import inverse_norm


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
    scores: Tensor = _Cosines.apply(features, directions)  # type: ignore[no-untyped-call]
    return scores


class _Cosines(torch.autograd.Function):
    """c_k = d_k.f / ||f|| for unit vectors d_k.

    The gradient of a feature is (sum_k g_k d_k - f sum_k g_k c_k / ||f||) / ||f||: two passes over the
    features, and it has their usual layout, channels last.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, directions: Tensor) -> Tensor:
        inverse = inverse_norm(features)
        scores = torch.matmul(directions, features) * inverse.unsqueeze(1)
        ctx.save_for_backward(features, directions, inverse, scores)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        features, directions, inverse, scores = ctx.saved_tensors
        rows, scaled = features.transpose(1, 2), gradient * inverse.unsqueeze(1)
        for_directions = torch.matmul(scaled, rows)
        if not ctx.needs_input_grad[0]:
            return None, for_directions
        along = ((gradient * scores).sum(dim=1) * inverse.square()).unsqueeze(2)
        across = torch.matmul(scaled.transpose(1, 2).contiguous(), directions)
        return across.addcmul_(rows, along, value=-1).transpose(1, 2), for_directions


def partners(tensor: Tensor, count: int) -> Tensor:
    """Give each of `count` samples of one stream a sample of the other: sample b gets b modulo B.

    Args:
        tensor: (B, ...) of the other stream, B > 0.
        count: samples of the one.

    Returns:
        (count, ...).
    """
    return tensor[torch.arange(count, device=tensor.device) % len(tensor)]
