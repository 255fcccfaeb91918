"""Sliding windows: how they cover a volume of any size, and the mean of what a network says in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import ceil, inf, lcm, prod
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.io.formats import out_of_memory
from semivox.nets import DIVISOR
from semivox.nets.cpu import idle
from semivox.nets.network import Network

Triple = tuple[int, int, int]
Weighting = Literal["uniform", "gaussian"]
_DIVISOR = (DIVISOR, DIVISOR, DIVISOR)
_MAPS = 8  # of full resolution and `widest` channels at a forward pass's peak; measured: 5.8 (32), 6.8 (bf16)


class MemoryShortageError(UserError):
    """A single window does not fit into the device's memory."""


def covered(
    image: Tensor,
    forward: Callable[[Tensor], Tensor],
    *,
    patch: Triple,
    config: PredictConfig,
    room: float = inf,
    divisor: Triple = _DIVISOR,
    device: torch.device | None = None,
    accumulate_on: torch.device | None = None,
) -> Tensor:
    """Run `sliding_window` as the settings say; where a whole pass needs too much memory, with patches."""

    def run(window: Triple, stride: Triple) -> Tensor:
        return sliding_window(
            image, forward, patch=window, stride=stride, weighting=config.weighting, batch=config.batch,
            device=device, accumulate_on=accumulate_on,
        )  # fmt: skip

    window, stride = tiling(image.shape[1:], patch, config, room, divisor)
    try:
        return run(window, stride)
    except MemoryShortageError:
        if window == patch:
            raise
    return run(patch, window_stride(patch, config.stride, config.overlap))


def tiling(
    shape: Sequence[int], patch: Triple, config: PredictConfig, room: float = inf, divisor: Triple = _DIVISOR
) -> tuple[Triple, Triple]:
    """Return window and stride for a scan of `shape`, in voxels.

    A whole pass takes one window: the scan with its sides rounded up to what the networks need, multiples of
    `divisor`. Where that has more than `room` voxels, or with "auto" more than twice those of a patch,
    windows of the patch's size are taken instead.
    """
    steps = (lcm(DIVISOR, step) for step in divisor)
    x, y, z = (-(-side // step) * step for side, step in zip(shape, steps, strict=True))
    most = {"patch": 0, "auto": 2 * prod(patch), "whole": inf}[config.window]
    if x * y * z <= min(most, max(room, prod(patch))):
        return (x, y, z), (x, y, z)
    return patch, window_stride(patch, config.stride, config.overlap)


def window_stride(patch: Triple, stride: Triple | None = None, overlap: float = 0.5) -> Triple:
    """Return the distance of neighbouring windows in voxels: `stride`, or what leaves a share in common.

    Raises:
        UserError: a stride that leaves gaps between windows.
    """
    if stride is None:
        x, y, z = (max(1, round(side * (1 - overlap))) for side in patch)
        return x, y, z
    if any(not 1 <= step <= side for step, side in zip(stride, patch, strict=True)):
        what = "The stride of the sliding window is outside the patch"
        do = "choose a smaller predict.stride, or leave it out and set predict.overlap"
        raise UserError(what, f"stride {stride}", f"1 to {patch} along each axis", do)
    return stride


def window_starts(size: int, patch: int, stride: int) -> list[int]:
    """Return the first voxel of each window along one axis of `size` >= `patch` voxels.

    ceil((size - patch) / stride) + 1 windows start at min(stride * j, size - patch), as in the published
    tests on the left atrium: the last window ends with the axis, so every voxel is covered.
    """
    return [min(stride * j, size - patch) for j in range(ceil((size - patch) / stride) + 1)]


def window_profile(patch: int, weighting: Weighting) -> Tensor:
    """Return the weights of a window along one axis, (patch,) float32 in (0, 1].

    A window's weight at a voxel is the product of the three axes' profiles. `gaussian`: standard deviation
    patch / 8 around the centre, never below 1e-3.
    """
    if weighting == "uniform":
        return torch.ones(patch)
    distance = torch.arange(patch, dtype=torch.float64) - (patch - 1) / 2
    return torch.exp(-0.5 * (distance / (patch / 8)) ** 2).clamp(min=1e-3).float()


@torch.no_grad()
def sliding_window(
    image: Tensor,
    forward: Callable[[Tensor], Tensor],
    *,
    patch: Triple,
    stride: Triple,
    weighting: Weighting = "gaussian",
    batch: int = 2,
    device: torch.device | None = None,
    accumulate_on: torch.device | None = None,
) -> Tensor:
    """Compute the weighted mean of what `forward` says about each voxel, over all windows that contain it.

    An axis shorter than the patch repeats its border, as in training (half of it in front, rounded down), and
    is cut back at the end. Values that sum to one over the channels in every window still do so in the
    result. There is no map of weights in memory: they are products of three profiles.

    Args:
        image: (C, X, Y, Z).
        forward: (B, C, *patch) -> (B, K, *patch), for any B up to `batch`.
        patch, stride: window, and distance of neighbouring windows, at most the window, in voxels.
        weighting: see `window_profile`.
        batch: windows in one call of `forward`; halved as often as needed when memory runs out.
        device: where the windows go; None: where the image is.
        accumulate_on: where the result (K, X, Y, Z) float32 is made; None: where the image is.

    Raises:
        MemoryShortageError: too little memory for a single window.
    """
    device, keep, size = device or image.device, accumulate_on or image.device, image.shape[1:]
    missing = [max(side - length, 0) for side, length in zip(patch, size, strict=True)]
    front = [count // 2 for count in missing]
    if any(missing):
        ends = [(start, count - start) for start, count in zip(front, missing, strict=True)]
        image = functional.pad(image, [side for end in reversed(ends) for side in end], mode="replicate")
    starts = [window_starts(*axis) for axis in zip(image.shape[1:], patch, stride, strict=True)]
    profiles = [window_profile(side, weighting).to(keep) for side in patch]
    weight = profiles[0][:, None, None] * profiles[1][:, None] * profiles[2]
    corners = list(product(*starts))
    total: Tensor | None = None
    done = 0
    while done < len(corners):
        chunk = corners[done : done + batch]
        values = _try_forward(forward, [_cut(image, corner, patch) for corner in chunk], device)
        if values is None:
            batch = len(chunk) // 2
            continue
        if values.shape[2:] != patch:
            raise ValueError(f"forward returned {tuple(values.shape[2:])} for windows of {patch}")
        values = values.to(keep, torch.float32)
        if len(corners) == 1:
            return _cut(values[0], front, size)
        if total is None:
            total = torch.zeros(values.shape[1], *image.shape[1:], device=keep)
        for corner, value in zip(chunk, values, strict=True):
            _cut(total, corner, patch).addcmul_(value, weight)
        done += len(chunk)
    assert total is not None
    for axis, profile in enumerate(profiles, start=1):  # the sum of all weights is a product over the axes
        coverage = torch.zeros(total.shape[axis], device=keep)
        for start in starts[axis - 1]:
            coverage[start : start + len(profile)] += profile
        total /= coverage.view([-1 if i == axis else 1 for i in range(4)])
    return _cut(total, front, size)


def _cut(volume: Tensor, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    x, y, z = (slice(start, start + side) for start, side in zip(corner, size, strict=True))
    return volume[:, x, y, z]


def _try_forward(
    forward: Callable[[Tensor], Tensor], windows: Sequence[Tensor], device: torch.device
) -> Tensor | None:
    """Run one batch of windows; None when the memory does not suffice, an error if it is a single one.

    PyTorch's exception is dropped before that: its traceback holds on to the activations.
    """
    try:
        return forward(torch.stack(list(windows)).to(device))
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)):
            raise
    if len(windows) == 1:
        found = f"out of memory on {device} with a window of {tuple(windows[0].shape[1:])} voxels"
        do = "close other programs, or predict with --window patch or --device cpu"
        raise MemoryShortageError("There is too little memory for one window", found, do=do)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def room(method: nn.Module, device: torch.device) -> float:
    """Return the voxels of a window whose forward pass fits into half of the free memory, in this autocast.

    Infinite where the memory cannot be asked, or where the method has no network that tells its width; 0
    where a network takes windows of the patch's size only.
    """
    if any(isinstance(net, Network) and net.one_size for net in method.modules()):
        return 0.0
    width = max((net.widest for net in method.modules() if isinstance(net, Network)), default=0)
    free = free_memory(device)
    if free is None or not width:
        return inf
    return free / 2 / (_MAPS * width * (2 if torch.is_autocast_enabled(device.type) else 4))


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the bytes that a process may still take, or None where nobody tells (a Mac, Windows)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo, cgroup = root / "proc/meminfo", root / "sys/fs/cgroup"
    if device.type != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limits = [cgroup / name for name in ("memory.max", "memory.current")]
    if all(file.is_file() for file in limits):
        limit, used = (file.read_text().strip() for file in limits)
        free = free if limit == "max" else min(free, int(limit) - int(used))
    return free + idle()
