"""Exponential moving average of a network's parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Teacher <- decay * teacher + (1 - decay) * student, for parameters; buffers stay the teacher's own.

    Args:
        teacher: of the student's structure.
        student: gives the new values.
        decay: 0..1; 0 copies the student.
    """
    old: list[Tensor] = list(teacher.parameters())
    new: list[Tensor] = list(student.parameters())
    torch._foreach_lerp_(old, new, 1.0 - decay)


@torch.no_grad()
def copy_state(teacher: nn.Module, student: nn.Module, *, parameters: bool = True) -> None:
    """Teacher <- student, buffers (e.g. running statistics) included.

    Args:
        teacher: of the student's structure.
        student: gives the new values.
        parameters: whether to copy parameters too, or buffers only.
    """
    if parameters:
        update_ema(teacher, student, 0.0)
    for old, new in zip(teacher.buffers(), student.buffers(), strict=True):
        old.copy_(new)
