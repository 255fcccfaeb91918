"""Losses of mixtures without torch, and what a term trains; for the tests of `bcp` and `sdcl`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


def softmax(net: nn.Module, image: np.ndarray) -> np.ndarray:
    """Probabilities (B, K, X, Y, Z) of a 1x1x1 convolution, without torch's softmax."""
    weight = net.weight.detach().numpy()[:, :, 0, 0, 0]  # type: ignore[operator,union-attr]
    logits = np.einsum("kc,bcxyz->bkxyz", weight, image) + net.bias.detach().numpy()[:, None, None, None]  # type: ignore
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def loss_on(p: np.ndarray, label: np.ndarray, region: np.ndarray) -> float:
    """(CE + Dice) / 2 over the chosen voxels of each sample."""
    samples, classes = p.shape[:2]
    dices = []
    entropy = 0.0
    for b in range(samples):
        truth = label[b][region]
        for c in range(classes):
            q = p[b, c][region]
            dices.append(1 - (2 * q[truth == c].sum() + 1e-5) / (q.sum() + (truth == c).sum() + 1e-5))
            entropy -= np.log(q[truth == c]).sum()
    return float(0.5 * (np.mean(dices) + entropy / (samples * region.sum())))


def trained_by(loss: Tensor, method: nn.Module) -> set[str]:
    parameters = {name: p for name, p in method.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name for name, g in zip(parameters, found, strict=True) if g is not None and bool((g != 0).any())}
