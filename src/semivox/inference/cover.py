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
        room: voxels of the largest window that fits into memory, see `memory.room`.
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
        fallback = tiling(shape, patch, config.model_copy(update={"window": "patch"}))
        if asked == fallback:
            raise
    return run(fallback)
