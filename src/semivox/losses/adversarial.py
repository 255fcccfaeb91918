"""Virtual adversarial perturbation: the small change of an image that changes a prediction most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semivox.losses.prediction import Prediction
from semivox.losses.supervised import mean


@contextmanager
def frozen_statistics(net: nn.Module) -> Iterator[None]:
    """Stop batch normalisation from updating its running statistics; what it computes stays the same."""
    layers = [part for part in net.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def overlap_loss(p: Tensor, q: Tensor) -> Tensor:
    """Compute 1 - mean over voxels of sum_c p_c q_c, a linear Dice loss.

    Not a divergence: for p = q it is 1 - mean(sum p^2), lowest for sure predictions.
    """
    return mean(1.0 - (p * q).sum(dim=1))


def unit(values: Tensor) -> Tensor:
    """Scale each sample (B, ...) to length 1 over all its elements; zeros stay."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1) + 1e-8
    return values / norms.view(-1, *(1,) * (values.dim() - 1))


def virtual_adversarial_loss(
    net: nn.Module,
    image: Tensor,
    target: Tensor,
    *,
    radius: float,
    probe_radius: float,
    power_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Compute `overlap_loss` of the target and the prediction on the image moved by `radius` against it.

    The direction starts at random and becomes the loss's gradient at `probe_radius`, `power_steps` times. The
    probes leave no gradients behind, and neither they nor the last pass change running statistics.

    Args:
        net: image -> logits (B, K, X, Y, Z).
        image: (B, C, X, Y, Z).
        target: q, probabilities without gradient.
        radius, probe_radius: lengths over all voxels and channels of a sample.
        power_steps: 0 leaves the random direction.
        generator: on the image's device.

    Source: Miyato et al., "Virtual adversarial training", TPAMI 2019.
    """
    noise = torch.rand(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    direction = unit(noise - 0.5)

    def loss_at(shift: Tensor) -> Tensor:
        moved = torch.empty_like(image).copy_(image + shift)  # in the image's layout, also with 1 channel
        logits = net(moved)
        with torch.autocast(image.device.type, enabled=False):
            return overlap_loss(Prediction.of(logits).probs, target)

    with frozen_statistics(net):
        for _ in range(power_steps):
            with torch.enable_grad():
                probe = direction.detach().requires_grad_()
                total = loss_at(probe_radius * probe) * target[:, 0].numel()  # that of a mean may underflow
                direction = unit(torch.autograd.grad(total, probe)[0])
        return loss_at(radius * direction)
