"""Where a run computes, in how many processes and in which arithmetic."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from semivox.errors import UserError
from semivox.hardware import device_name, has_bf16, prefers_bf16
from semivox.methods.base import Method, fixed

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Lightning's names."""

log = logging.getLogger(__name__)


def make_fabric(device: torch.device, precision: Precision, *, processes: int = 1) -> Fabric:
    """Return a launched Fabric: with several processes, this one has become one of them.

    One process ignores the variables of a cluster, as `semivox train` may run inside a larger job. Several,
    each on a device of its own, are started by Lightning with the command line of this one, or by what
    started this one.
    """
    one = processes == 1
    with quiet():
        fabric = Fabric(
            accelerator=device.type,
            devices=[device.index or 0] if one and device.type != "cpu" else processes,
            strategy="auto" if one else "ddp",
            precision=precision,
            plugins=[LightningEnvironment()] if one else None,
        )
        fabric.launch()
    return fabric


def precision_of(fabric: Fabric) -> Precision:
    """Return Lightning's name of the arithmetic that `fabric` computes in."""
    return cast("Precision", fabric.strategy.precision.precision)


def autocast(fabric: Fabric) -> torch.autocast:
    """Return a context that computes in the precision of `fabric`.

    PyTorch's cache of rounded weights is off: a pass without gradients, such as a teacher's, would leave it
    copies that are cut off from their weights, and the next pass of the same network would get no gradients.
    """
    precision = precision_of(fabric)
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    kind, mixed = fabric.device.type, precision != "32-true"
    return torch.autocast(kind, dtype, enabled=mixed, cache_enabled=False)


@contextmanager
def evaluating(method: Method, fabric: Fabric) -> Iterator[None]:
    """Compute in evaluation mode and without gradients; afterwards modules have the mode they had before."""
    with fixed(method), torch.no_grad(), autocast(fabric):
        yield


def resolve_precision(setting: str, device: torch.device, before: Precision | None = None) -> Precision:
    """Turn `TrainConfig.precision` into Lightning's name for it; `auto` is bf16 where that is quicker.

    On a CPU a run that resumes with `auto` keeps the precision of `before`, if the CPU has it: the trial of
    the speed might come out otherwise this time. A warning says where bf16 is asked of a device without
    instructions for it.

    Raises:
        UserError: 16 bit floating point anywhere but on a CUDA GPU.
    """
    if setting == "auto":
        if device.type == "cpu" and (before == "32-true" or (before == "bf16-mixed" and has_bf16(device))):
            return before
        return "bf16-mixed" if prefers_bf16(device) else "32-true"
    if setting == "16":
        if device.type != "cuda":
            expected, do = "auto, 32 or bf16 on this device", "--set train.precision=auto"
            raise UserError("Precision 16 needs a CUDA GPU", f"device {device.type}", expected, do)
        return "16-mixed"
    if setting == "32":
        return "32-true"
    if not has_bf16(device):
        text = "%s has no bfloat16 instructions: steps may take 20 times as long as with train.precision=auto"
        log.warning(text, device_name(device))
    return "bf16-mixed"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's messages and warnings inside the block; let cuDNN choose its fastest kernels."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("fabric", "pytorch")]
    levels, before = [logger.level for logger in loggers], torch.backends.cudnn.benchmark
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    torch.backends.cudnn.benchmark = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.backends.cudnn.benchmark = before
