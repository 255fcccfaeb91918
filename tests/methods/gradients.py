"""What a term trains: parameters, and samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def trained_by(loss: Tensor, module: nn.Module, depth: int | None = None) -> set[str]:
    """Names of the parameters with a gradient other than 0, or the first `depth` parts of them."""
    if not loss.requires_grad:
        return set()
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    names = [
        name for name, g in zip(parameters, found, strict=True) if g is not None and bool((g != 0).any())
    ]
    return {".".join(name.split(".")[:depth]) for name in names}


def reached(loss: Tensor, parameter: Tensor) -> tuple[bool, bool]:
    """Whether the gradient of the first two samples, which are labeled, and of the others is other than 0."""
    found = None
    if loss.requires_grad:
        found = torch.autograd.grad(loss, parameter, retain_graph=True, allow_unused=True)[0]
    return (False, False) if found is None else (bool((found[:2] != 0).any()), bool((found[2:] != 0).any()))
