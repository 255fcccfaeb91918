"""A scan on the working grid: which windows cover it, and what the runs of a model say about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, lcm, prod
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference.model import LoadedModel
from semivox.inference.quality import measure
from semivox.inference.uncertainty import View, entropy, views
from semivox.inference.windows import MemoryShortageError, Triple, sliding_window
from semivox.methods.base import Method
from semivox.nets.blocks import DIVISOR, Segmenter
from semivox.nets.cpu import idle

_MAPS = 8  # of full resolution and `width` channels at a forward pass's peak; measured: 5.8 (32), 6.8 (bf16)


Precision = Literal["32", "bf16"]


class Tiling(TypedDict):
    """How `sliding_window` covers a scan: its arguments of the same names."""

    patch: Triple
    stride: Triple | None
    overlap: float


def tiling(
    shape: Sequence[int],
    patch: Triple,
    config: PredictConfig,
    room: float = inf,
    divisor: Triple = (DIVISOR, DIVISOR, DIVISOR),
) -> Tiling:
    """Turn settings into window size and stride for a scan of `shape`.

    A whole pass takes one window: the scan with its sides rounded up to what the networks need. Where that
    has more than `room` voxels, or with "auto" more than twice those of a patch, windows of the patch's size
    are taken instead.

    Args:
        shape: of the scan, in voxels.
        patch: of the training.
        config: sliding-window settings.
        room: voxels of the largest window that fits into memory, see `room`.
        divisor: what the sides of a plan's patch are multiples of.
    """
    steps = (lcm(DIVISOR, step) for step in divisor)
    x, y, z = (-(-side // step) * step for side, step in zip(shape, steps, strict=True))
    most = {"patch": 0, "auto": 2 * prod(patch), "whole": inf}[config.window]
    if x * y * z <= min(most, max(room, prod(patch))):
        return {"patch": (x, y, z), "stride": None, "overlap": 0.0}
    return {"patch": patch, "stride": config.stride, "overlap": config.overlap}


def covered(
    image: Tensor,
    forward: Callable[[Tensor], Tensor],
    *,
    patch: Triple,
    config: PredictConfig,
    room: float = inf,
    divisor: Triple = (DIVISOR, DIVISOR, DIVISOR),
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

    asked = tiling(image.shape[1:], patch, config, room, divisor)
    try:
        return run(asked)
    except MemoryShortageError:
        fallback = tiling(image.shape[1:], patch, config.model_copy(update={"window": "patch"}))
        if asked == fallback:
            raise
    return run(fallback)


@dataclass(frozen=True)
class Found:
    """What a model says on the working grid.

    Attributes:
        probs: (K, X, Y, Z) as the networks say it.
        members: the same of each network alone, if asked for.
        figures: what tells how good it is, see `semivox.inference.quality`.
    """

    probs: Tensor
    members: dict[str, Tensor]
    figures: dict[str, float]


def on_working_grid(
    model: LoadedModel,
    array: NDArray[np.float32],
    config: PredictConfig,
    *,
    precision: Precision,
    members: bool = False,
) -> Found:
    """Predict a scan (C, X, Y, Z) on the working grid, as the mean of the model's runs.

    Raises:
        UserError: a model or a scan with values that are no numbers.
    """
    voxel_ml, runs, found = prod(model.plan.spacing_mm) / 1000, model.runs, []
    total: Tensor | None = None
    by_member: dict[str, Tensor] = {}
    for number, run in enumerate(runs, start=1):
        probs, doubt, alone = _one_run(run, array, config, precision=precision, members=members)
        found.append(measure(probs, doubt, voxel_ml, run.calibration.volumes))
        by_member |= {f"{name}_{number}" if len(runs) > 1 else name: part for name, part in alone.items()}
        total = probs if total is None else total.add_(probs)
    assert total is not None
    figures = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return Found(total.div_(len(runs)) if len(runs) > 1 else total, by_member, figures)


def _one_run(
    model: LoadedModel,
    array: NDArray[np.float32],
    config: PredictConfig,
    *,
    precision: Precision,
    members: bool,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Probabilities (K, X, Y, Z), the mean entropy of those that they are the mean of, and each member's."""
    names: list[str] = []
    classes = len(model.plan.class_names)
    # one context for all windows: within it, weights are converted once
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        maps = covered(
            torch.from_numpy(array),
            partial(_forward, model.method, views(config.tta), members, names),
            patch=model.plan.patch,
            config=config,
            room=room(model.method, model.device),
            divisor=model.plan.divisor,
            device=model.device,
            accumulate_on=_accumulator_device(model, array),
        )
    if not torch.isfinite(maps.sum()):
        raise _not_finite(array, precision)
    probs, doubt, alone = maps[:classes], maps[classes], maps[classes + 1 :]
    by_member = dict(zip(names, torch.split(alone, classes), strict=True)) if members else {}
    return probs, doubt, by_member


def _forward(
    method: Method, seen: Sequence[View], members: bool, names: list[str], windows: Tensor
) -> Tensor:
    """(B, C, X, Y, Z) -> (B, K + 1, X, Y, Z): probabilities and entropy; then each member's probabilities.

    The entropy is the mean over the views, and over the members where the prediction is their plain mean:
    then they cost nothing. `names` gets the names of the members.
    """
    averaging = type(method).predict is Method.predict and type(method).combine is Method.combine
    found = []
    for view in seen:
        image = view.change(windows)
        alone = method.predict_members(image) if members or averaging else {}
        probs = view.back(method.combine(alone) if alone else method.predict(image))
        parts = [view.back(part) for part in alone.values()]
        doubts = [entropy(part.movedim(1, 0)) for part in (parts if averaging else [probs])]
        names[:] = alone
        found.append(torch.cat([probs, torch.stack(doubts).mean(0)[:, None], *(parts if members else [])], 1))
    return found[0] if len(found) == 1 else torch.stack(found).mean(0)


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


def _accumulator_device(model: LoadedModel, array: NDArray[np.float32]) -> torch.device:
    """Return the GPU if the accumulators fit in a quarter of its free memory, else the CPU."""
    if model.device.type != "cuda":
        return torch.device("cpu")
    needed = 4 * 4 * (len(model.plan.class_names) + 1) * prod(array.shape[1:])
    free = free_memory(model.device)
    return model.device if free is not None and needed < free / 4 else torch.device("cpu")


def _not_finite(array: NDArray[np.float32], precision: Precision) -> UserError:
    if not np.isfinite(array).all():
        do = "replace them, e.g. by 0 with numpy.nan_to_num"
        what = "The scan holds values that are not finite"
        return UserError(what, "NaN or infinity", "finite intensities", do)
    found = f"NaN or infinity in the probabilities, with precision {precision}"
    do = "try precision 32; if that does not help, the training diverged: use a smaller train.lr"
    return UserError("The model returned values that are not numbers", found, do=do)


def _number(file: Path) -> int | None:
    """The content of a file if it is a number; `max` stands for no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
