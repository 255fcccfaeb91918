"""Lengths of feature vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TINY = 1e-12  # a vector with a square below has no direction


def inverse_norm(features: Tensor, dim: int = 1) -> Tensor:
    """1 / ||f|| over `dim`; 0 for a vector without direction (||f||^2 <= 1e-12)."""
    inverse: Tensor = _InverseNorm.apply(features, dim)  # type: ignore[no-untyped-call]
    return inverse


class _InverseNorm(torch.autograd.Function):
    """With s = 1 / ||f|| the gradient is -s^3 f: one pass over the features, in their own layout."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, dim: int) -> Tensor:
        norm = torch.linalg.vector_norm(features, dim=dim)
        inverse = torch.where(norm.square() > TINY, norm.reciprocal(), 0.0)
        ctx.save_for_backward(features, inverse)
        ctx.dim = dim
        return inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        features, inverse = ctx.saved_tensors
        return features * (-gradient * inverse**3).unsqueeze(ctx.dim), None
