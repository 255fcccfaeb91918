"""Uncertainty maps and thresholds on them."""

from __future__ import annotations

from math import ceil, floor, log

import torch
from torch import Tensor


@torch.no_grad()
def percentile(values: Tensor, q: float) -> Tensor:
    """Percentile with linear interpolation, as `numpy.percentile`, for tensors of any size.

    One selection gives the lower neighbour; the upper one is the same value if it occurs often enough, else
    the smallest larger one. No sort, no copy to the host.

    Args:
        values: any shape; 0 is returned if it has no elements.
        q: 0..100.

    Returns:
        A scalar tensor.
    """
    count = values.numel()
    if not count:
        return values.new_zeros(())
    position = q / 100.0 * (count - 1)
    rank, weight = floor(position), position - floor(position)
    flat = values.detach().flatten()
    lower = flat.kthvalue(rank + 1).values
    if ceil(position) == rank:
        return lower
    larger = torch.where(flat > lower, flat, torch.inf).amin()
    upper = torch.where((flat <= lower).sum() > rank + 1, lower, larger)
    return torch.lerp(lower, upper, weight)


@torch.no_grad()
def normalised_entropy(probs: Tensor) -> Tensor:
    """-sum_c p_c log(p_c + 1e-6) / log K: 0 for one sure class, just below 1 for equal probabilities.

    Args:
        probs: (B, K, X, Y, Z), e.g. the mean of several softmax maps.

    Returns:
        (B, X, Y, Z).
    """
    return -(probs * (probs + 1e-6).log()).sum(dim=1) / log(probs.shape[1])
