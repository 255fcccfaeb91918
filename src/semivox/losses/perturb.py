"""Random perturbations of images, and predictions averaged over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from semivox.losses.prediction import widen


def add_noise(image: Tensor, generator: torch.Generator, *, std: float = 0.1, limit: float = 0.2) -> Tensor:
    """Add clipped Gaussian noise to each voxel.

    Args:
        image: any shape; normalised intensities (standard deviation about 1).
        generator: on the image's device.
        std: standard deviation of the noise before clipping.
        limit: largest magnitude of the noise.

    Source: Yu et al., MICCAI 2019 (the defaults).
    """
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype, device=image.device)
    noisy = torch.empty_like(image).copy_(noise)  # keeps the image's layout, also with one channel
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
    """Mean softmax over stochastic passes, each with noise and the network's dropout of its own.

    Two passes are one call on the doubled batch, as published; this decides over how many samples batch
    normalisation takes its statistics.

    Args:
        net: images -> logits (B, K, X, Y, Z), in training mode.
        image: (B, C, X, Y, Z).
        generator: on the image's device.
        passes: how many, an even number.
        std: see `add_noise`.
        limit: see `add_noise`.

    Returns:
        (B, K, X, Y, Z), at least float32.
    """
    twice = torch.cat([image, image])
    total = torch.zeros((), device=image.device)
    for _ in range(passes // 2):
        logits = net(add_noise(twice, generator, std=std, limit=limit))
        total = total + torch.softmax(widen(logits), dim=1)
    return (total[: len(image)] + total[len(image) :]) / passes
