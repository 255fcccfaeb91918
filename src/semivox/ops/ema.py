"""Exponential moving average of a network's parameters."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Teacher <- decay * teacher + (1 - decay) * student, for parameters; buffers stay the teacher's own.

    Args:
        teacher: of the student's structure.
        student: gives the new values.
        decay: 0..1; 0 copies the student.
    """
    old, new = list(teacher.parameters()), list(student.parameters())
    torch._foreach_lerp_(old, new, 1.0 - decay)
