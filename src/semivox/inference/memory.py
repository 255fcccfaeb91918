"""What fits into memory: a guess before a forward pass, and the error when the guess was wrong."""

from __future__ import annotations

from math import inf
from pathlib import Path

import torch
from torch import nn

from semivox.errors import UserError
from semivox.nets.blocks import Segmenter
from semivox.nets.heap import idle

MAPS = 8  # of full resolution and `width` channels at a forward pass's peak; measured: 5.8 (32), 6.8 (bf16)
_CPU_MESSAGE = "can't allocate memory"  # of PyTorch's allocator, which raises a plain RuntimeError


class MemoryShortageError(UserError):
    """A single window does not fit into the device's memory."""


def room(method: nn.Module, device: torch.device) -> float:
    """Voxels of a window whose forward pass fits into half of the free memory, in the current autocast.

    Infinite where the memory cannot be asked, or where the method has no network that tells its width.
    """
    width = max((net.width for net in method.modules() if isinstance(net, Segmenter)), default=0)
    free = free_memory(device)
    if free is None or not width:
        return inf
    return free / 2 / (MAPS * width * (2 if torch.is_autocast_enabled(device.type) else 4))


def free_memory(
    device: torch.device, meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Bytes that a process may still take, or None where nobody tells (a Mac, Windows)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_number(cgroup / name) for name in ("memory.max", "memory.current"))
    left = available if limit is None or used is None else min(available, limit - used)
    return left + idle()


def is_shortage(error: RuntimeError) -> bool:
    """Whether PyTorch ran out of memory, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or _CPU_MESSAGE in str(error)


def _number(file: Path) -> int | None:
    """The content of a file if it is a number; `max` stands for no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
