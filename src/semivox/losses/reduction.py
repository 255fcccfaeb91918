"""Means that are 0 over nothing instead of NaN, and stay attached to the graph; no copy to the host."""

from __future__ import annotations

from torch import Tensor


def mean(values: Tensor) -> Tensor:
    """Mean of all elements; 0 for a tensor without elements."""
    return values.sum() / max(values.numel(), 1)


def both(mask: Tensor, other: Tensor | None) -> Tensor:
    """Where both boolean masks hold; None holds everywhere."""
    return mask if other is None else mask & other


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `values` where the boolean `mask` (same shape) holds, 0 if nowhere; None: of all."""
    if mask is None:
        return mean(values)
    return (values * mask).sum() / mask.sum().clamp_min(1)
