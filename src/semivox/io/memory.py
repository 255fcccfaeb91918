"""How much memory there is, and whether a scan fits into it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path

from semivox.errors import UserError

_WORKING_BYTES = 4  # the float32 copy that is made of every voxel


def machine_memory() -> int | None:
    """Physical memory in bytes; None where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_memory(shape: Sequence[int], itemsize: int, path: Path) -> None:
    """Refuse a scan of more voxels than fit into this machine's memory, before any is allocated.

    Args:
        shape: voxels along all axes.
        itemsize: bytes of a voxel in the file.
        path: of the file, for the message.
    """
    memory, sides = machine_memory(), tuple(map(int, shape))
    if memory is not None and prod(sides) * (itemsize + _WORKING_BYTES) > memory:
        raise UserError(
            "The scan does not fit into this machine's memory",
            path=path,
            found=f"{' x '.join(map(str, sides))} voxels of {itemsize} bytes",
            expected=f"at most {memory / 1e9:.0f} GB, with a float32 copy",
            do="check the file, it may be damaged; or crop or downsample it",
        )
