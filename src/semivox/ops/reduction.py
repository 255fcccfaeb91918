"""Means that are 0 over nothing instead of NaN, and stay attached to the graph; no copy to the host."""

from __future__ import annotations

from torch import Tensor


def mean(values: Tensor) -> Tensor:
    """Mean of all elements; 0 for a tensor without elements."""
    return values.sum() / max(values.numel(), 1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where the boolean `mask` (same shape) holds; 0 where it holds nowhere."""
    return (values * mask).sum() / mask.sum().clamp_min(1)
