"""Which windows cover a scan, chosen by the settings, the patch of the training and the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from semivox.config import PredictConfig
from semivox.inference.windows import MemoryShortageError, Triple, sliding_window
from semivox.nets.blocks import DIVISOR, Segmenter
from semivox.nets.cpu import idle

_MAPS = 8  # of full resolution and `width` channels at a forward pass's peak; measured: 5.8 (32), 6.8 (bf16)


class Tiling(TypedDict):
    """How `sliding_window` covers a scan: its arguments of the same names."""

    patch: Triple
    stride: Triple | None
    overlap: float


def tiling(shape: Sequence[int], patch: Triple, config: PredictConfig, room: float = inf) -> Tiling:
    """Turn settings into window size and stride for a scan of `shape`.

    A whole pass takes one window: the scan with its sides rounded up to what the networks need. Where that
    has more than `room` voxels, windows of the patch's size are taken instead.

    Args:
        shape: of the scan, in voxels.
        patch: of the training.
        config: sliding-window settings.
        room: voxels of the largest window that fits into memory, see `room`.
    """
    x, y, z = (-(-side // DIVISOR) * DIVISOR for side in shape)
    if config.window == "whole" and x * y * z <= max(room, prod(patch)):
        return {"patch": (x, y, z), "stride": None, "overlap": 0.0}
    return {"patch": patch, "stride": config.stride, "overlap": config.overlap}


def covered(
    image: Tensor,
    forward: Callable[[Tensor], Tensor],
    *,
    patch: Triple,
    config: PredictConfig,
    room: float = inf,
    device: torch.device | None = None,
    accumulate_on: torch.device | None = None,
) -> Tensor:
    """Run `sliding_window` over an image (C, X, Y, Z) as the settings say.

    Where memory runs out in a whole pass all the same, windows of the patch's size follow.
    """

    def run(asked: Tiling) -> Tensor:
        return sliding_window(
            image,
            forward,
            **asked,
            weighting=config.weighting,
            batch=config.batch,
            device=device,
            accumulate_on=accumulate_on,
        )

    asked = tiling(image.shape[1:], patch, config, room)
    try:
        return run(asked)
    except MemoryShortageError:
        fallback = tiling(image.shape[1:], patch, config.model_copy(update={"window": "patch"}))
        if asked == fallback:
            raise
    return run(fallback)


def room(method: nn.Module, device: torch.device) -> float:
    """Return the voxels of a window whose forward pass fits into half of the free memory, in this autocast.

    Infinite where the memory cannot be asked, or where the method has no network that tells its width.
    """
    width = max((net.width for net in method.modules() if isinstance(net, Segmenter)), default=0)
    free = free_memory(device)
    if free is None or not width:
        return inf
    return free / 2 / (_MAPS * width * (2 if torch.is_autocast_enabled(device.type) else 4))


def free_memory(
    device: torch.device, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes that a process may still take, or None where nobody tells (a Mac, Windows)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_number(cgroup / name) for name in ("memory.max", "memory.current"))
    left = available if limit is None or used is None else min(available, limit - used)
    return left + idle()


def _number(file: Path) -> int | None:
    """The content of a file if it is a number; `max` stands for no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
