"""Which arithmetic a run uses, in Lightning's words."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from semivox.errors import UserError
from semivox.hardware import device_name, has_bf16, prefers_bf16

LightningPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]

log = logging.getLogger(__name__)


def resolve_precision(setting: str, device: torch.device) -> LightningPrecision:
    """Turn `TrainConfig.precision` into Lightning's name for it; `auto` is bf16 where that is quicker.

    A warning says where bf16 is asked of a device without instructions for it.

    Raises:
        UserError: 16 bit floating point anywhere but on a CUDA GPU.
    """
    if setting == "auto":
        return "bf16-mixed" if prefers_bf16(device) else "32-true"
    if setting == "16":
        if device.type != "cuda":
            raise UserError(
                "Precision 16 needs a CUDA GPU",
                found=f"device {device.type}",
                expected="auto, 32 or bf16 on this device",
                do="--set train.precision=auto",
            )
        return "16-mixed"
    if setting == "bf16" and not has_bf16(device):
        log.warning(
            "%s has no bfloat16 instructions: steps may take 20 times as long as with train.precision=auto",
            device_name(device),
        )
    return "bf16-mixed" if setting == "bf16" else "32-true"


def continued_precision(
    precision: LightningPrecision, before: LightningPrecision | None, device: torch.device
) -> LightningPrecision:
    """What a run with `auto` goes on with: on a CPU, what it has used so far, if the CPU has it.

    The trial of the speed behind `auto` might come out otherwise this time.
    """
    if device.type != "cpu" or before is None or (before == "bf16-mixed" and not has_bf16(device)):
        return precision
    return before
