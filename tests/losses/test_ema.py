"""Exponential moving average."""

from __future__ import annotations

import torch
from torch import nn

from semivox.losses.ema import copy_state, update_ema


def test_parameters_move_and_buffers_stay() -> None:
    teacher, student = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(teacher.weight, 1.0)
    nn.init.constant_(student.weight, 3.0)
    student.running_mean.fill_(5.0)  # type: ignore[union-attr]
    update_ema(teacher, student, 0.75)
    assert teacher.weight.item() == 1.5 and student.weight.item() == 3.0
    assert teacher.running_mean.item() == 0.0  # type: ignore[union-attr]
    update_ema(teacher, student, 0.0)
    assert torch.equal(teacher.weight, student.weight)


def test_copy_state() -> None:
    teacher, student = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    nn.init.constant_(student.weight, 3.0)
    student.running_mean.fill_(5.0)  # type: ignore[union-attr]
    copy_state(teacher, student, parameters=False)
    assert teacher.weight.item() == 1.0 and teacher.running_mean.item() == 5.0  # type: ignore[union-attr]
    copy_state(teacher, student)
    assert teacher.weight.item() == 3.0
