"""Uncertainty maps, thresholds on them, and the noise that reveals it."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, log

import torch
from torch import Tensor

from semivox.losses.prediction import widen


@torch.no_grad()
def percentile(values: Tensor, q: float) -> Tensor:
    """Return the percentile with linear interpolation, as `numpy.percentile`, for tensors of any size.

    One selection finds the lower neighbour; the upper one is the same value if it occurs often enough, else
    the smallest larger one. No sort, no copy to the host.

    `q` is 0..100. Without elements it is 0.
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
def percentile_by_class(values: Tensor, label: Tensor, num_classes: int, q: float) -> Tensor:
    """Return for each voxel the percentile of `values` over the voxels of its own class.

    The rank is rounded up instead of interpolated, so that at least one voxel of each class is not above it.
    `values` and `label` have the same shape; `q` is 0..100.
    """
    flat, own = values.detach().flatten(), label.flatten()
    thresholds = []
    for index in range(num_classes):
        inside = own == index
        ordered = torch.where(inside, flat, torch.inf).sort().values if len(flat) else flat.new_zeros(1)
        rank = ((inside.sum() - 1).clamp_min(0) * (q / 100.0)).ceil().long()
        thresholds.append(ordered.gather(0, rank.view(1)))
    return torch.cat(thresholds)[own].view_as(values)


@torch.no_grad()
def normalised_entropy(probs: Tensor) -> Tensor:
    """Compute -sum_c p_c log(p_c + 1e-6) / log K: 0 for one sure class, just below 1 for equal ones."""
    return -(probs * (probs + 1e-6).log()).sum(dim=1) / log(probs.shape[1])


def add_noise(image: Tensor, generator: torch.Generator, *, std: float = 0.1, limit: float = 0.2) -> Tensor:
    """Add Gaussian noise of deviation `std`, clipped at `limit`, to normalised intensities.

    Source: Yu et al., MICCAI 2019 (the defaults).
    """
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype, device=image.device)
    noisy = torch.empty_like(image).copy_(noise)  # keeps the image's memory layout, also with one channel
    return noisy.mul_(std).clamp_(-limit, limit).add_(image)


@torch.no_grad()
def sampled_probabilities(
    net: Callable[[Tensor], Tensor],
    image: Tensor,
    generator: torch.Generator,
    *,
    passes: int,
    std: float = 0.1,
    limit: float = 0.2,
) -> Tensor:
    """Average softmax maps over stochastic passes, each with its own noise and the network's dropout.

    Two passes are one call on the doubled batch, as published; this decides over how many samples batch
    normalisation takes its statistics.

    Args:
        net: images -> logits, in training mode.
        image: (B, C, X, Y, Z).
        generator: on the image's device.
        passes: how many, an even number.
        std, limit: see `add_noise`.
    """
    twice = torch.cat([image, image])
    total = torch.zeros((), device=image.device)
    for _ in range(passes // 2):
        logits = net(add_noise(twice, generator, std=std, limit=limit))
        total = total + torch.softmax(widen(logits), dim=1)
    return (total[: len(image)] + total[len(image) :]) / passes
