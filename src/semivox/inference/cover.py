"""Which windows cover a scan, chosen by the settings, the patch of the training and the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import TypedDict

import torch
from torch import Tensor

from semivox.config import PredictConfig
from semivox.inference.memory import MemoryShortageError
from semivox.inference.windows import Triple, sliding_window
from semivox.nets.blocks import DIVISOR

WHOLE_FROM = 5 * DIVISOR  # voxels of every side of the patch; docs/performance/inference.md has the evidence


class Tiling(TypedDict):
    """How `sliding_window` covers a scan: its arguments of the same names."""

    patch: Triple
    stride: Triple | None
    overlap: float


def tiling(shape: Sequence[int], patch: Triple, config: PredictConfig, room: float = inf) -> Tiling:
    """Turn settings into window size and stride for a scan of `shape`.

    A whole pass takes one window: the scan with its sides rounded up to what the networks need. `auto` takes
    it where no side of the patch is below `WHOLE_FROM`, no stride is asked for and it has at most `room`
    voxels; its window is at least a patch large.

    Args:
        shape: of the scan, in voxels.
        patch: of the training.
        config: sliding-window settings.
        room: voxels of the largest window that `auto` may choose.
    """
    x, y, z = (-(-side // DIVISOR) * DIVISOR for side in shape)
    if config.window == "whole":
        return {"patch": (x, y, z), "stride": None, "overlap": 0.0}
    if config.window == "auto" and config.stride is None and min(patch) >= WHOLE_FROM:
        whole = max(x, patch[0]), max(y, patch[1]), max(z, patch[2])
        if prod(whole) <= room:
            return {"patch": whole, "stride": None, "overlap": 0.0}
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

    Where `auto` chose a whole pass and memory runs out all the same, windows of the patch's size follow.
    """
    shape = image.shape[1:]

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

    asked = tiling(shape, patch, config, room)
    try:
        return run(asked)
    except MemoryShortageError:
        fallback = tiling(shape, patch, config, room=0)
        if asked == fallback or config.window == "whole":
            raise
    return run(fallback)
