"""Sliding windows against a second, naive implementation and published counts."""

from __future__ import annotations

import math
from math import inf

import pytest
import torch
from torch import Tensor, nn

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference.windows import (
    covered,
    free_memory,
    room,
    sliding_window,
    tiling,
    window_profile,
    window_starts,
    window_stride,
)
from semivox.methods import create
from semivox.nets import NetFactory

CPU = torch.device("cpu")
PATCH, HALF = (6, 4, 4), (3, 2, 2)


def naive(image: Tensor, forward, patch, stride, weighting) -> Tensor:
    """Window by window with explicit maps of sums and weights, in float64; images at least a patch large."""
    weight = torch.ones(patch, dtype=torch.float64)
    if weighting == "gaussian":
        for x in range(patch[0]):
            for y in range(patch[1]):
                for z in range(patch[2]):
                    value = 1.0
                    for index, side in zip((x, y, z), patch, strict=True):
                        sigma, centre = side / 8, (side - 1) / 2
                        value *= max(math.exp(-((index - centre) ** 2) / (2 * sigma**2)), 1e-3)
                    weight[x, y, z] = value
    total = torch.zeros(1)
    coverage = torch.zeros(image.shape[1:], dtype=torch.float64)
    counts = [math.ceil((s - p) / d) + 1 for s, p, d in zip(image.shape[1:], patch, stride, strict=True)]
    for i in range(counts[0]):
        for j in range(counts[1]):
            for k in range(counts[2]):
                x, y, z = (
                    min(d * n, s - p)
                    for d, n, s, p in zip(stride, (i, j, k), image.shape[1:], patch, strict=True)
                )
                box = (slice(None), slice(x, x + patch[0]), slice(y, y + patch[1]), slice(z, z + patch[2]))
                out = forward(image[box][None])[0].double()
                if total.ndim == 1:
                    total = torch.zeros(out.shape[0], *image.shape[1:], dtype=torch.float64)
                total[box] += out * weight
                coverage[box[1:]] += weight
    return total / coverage


def position_dependent(windows: Tensor) -> Tensor:
    """Three channels whose values depend on where in the window a voxel lies, and sum to one."""
    ramp = torch.linspace(0, 1, windows.shape[2]).view(-1, 1, 1) + torch.zeros(windows.shape[2:])
    first = torch.sigmoid(windows[:, :1] + ramp)
    second = (1 - first) * torch.sigmoid(windows[:, -1:] * ramp.flip(0))
    return torch.cat([first, second, 1 - first - second], dim=1)


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 13, 9, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("patch", "stride"), [((6, 4, 8), (3, 3, 2)), ((5, 9, 3), (4, 1, 3)), ((6, 4, 4), (1, 4, 2))]
)
def test_agrees_with_naive_loops(image, weighting, batch, patch, stride):
    result = sliding_window(
        image, position_dependent, patch=patch, stride=stride, weighting=weighting, batch=batch
    )
    expected = naive(image, position_dependent, patch, stride, weighting)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.sum(0), torch.ones(13, 9, 8))


@pytest.mark.parametrize("weighting", ["uniform", "gaussian"])
@pytest.mark.parametrize("size", [(13, 9, 8), (3, 9, 5), (3, 2, 1), (6, 4, 4)])
def test_identity_gives_back_the_image_also_where_it_is_smaller_than_the_patch(weighting, size):
    image = torch.randn(2, *size)
    result = sliding_window(image, lambda windows: windows, patch=PATCH, stride=HALF, weighting=weighting)
    assert result.shape == image.shape
    torch.testing.assert_close(result, image)


def test_small_axis_repeats_its_border_the_smaller_half_in_front():
    seen = []

    def forward(windows: Tensor) -> Tensor:
        seen.append(windows)
        return windows

    image = torch.arange(1.0, 4).view(1, 3, 1, 1).expand(1, 3, 4, 7)
    sliding_window(image, forward, patch=PATCH, stride=(1, 1, 4))
    windows = torch.cat(seen)
    assert windows.shape == (2, 1, 6, 4, 4)
    assert windows[0, 0, :, 0, 0].tolist() == [1, 1, 2, 3, 3, 3]


def test_number_of_windows_on_the_left_atrium_as_published():
    """(203 - 112) / 18 = 5.06: 7 along x; (142 - 112) / 18 = 1.67: 3; (88 - 80) / 4 = 2: 3 along z."""
    for size, windows in (((203, 142, 88), 63), ((148, 132, 88), 27), ((244, 160, 88), 108)):
        axes = zip(size, (112, 112, 80), (18, 18, 4), strict=True)
        assert math.prod(len(window_starts(*axis)) for axis in axes) == windows
    assert window_starts(203, 112, 18) == [0, 18, 36, 54, 72, 90, 91], "the last ends with the axis"
    assert window_starts(88, 80, 4) == [0, 4, 8]
    assert window_starts(80, 80, 7) == [0]


def test_stride_from_overlap():
    assert window_stride((112, 112, 80), overlap=0.5) == (56, 56, 40)
    assert window_stride((4, 10, 3), overlap=0.9) == (1, 1, 1)
    assert window_stride((16, 32, 48), overlap=0) == (16, 32, 48)
    assert window_stride((16, 32, 48), (3, 2, 1), overlap=0) == (3, 2, 1)
    for gaps in ((7, 4, 4), (0, 1, 1)):
        with pytest.raises(UserError, match="stride"):
            window_stride(PATCH, gaps)


@pytest.mark.parametrize("patch", [2, 5, 16, 112])
def test_gaussian_profile_is_symmetric_and_never_zero(patch):
    """Its values are those of the naive loops above."""
    profile = window_profile(patch, "gaussian")
    assert profile.min() >= 1e-3 - 1e-9
    assert torch.equal(profile, profile.flip(0))
    assert int(profile.argmax()) in {(patch - 1) // 2, patch // 2}


class LittleMemory:
    """Fails on more than `room` windows, like a full GPU, or with `error`."""

    def __init__(self, room: int, error: RuntimeError) -> None:
        self.room, self.batches, self.error = room, [], error

    def __call__(self, windows: Tensor) -> Tensor:
        self.batches.append(len(windows))
        if len(windows) > self.room:
            raise self.error
        return windows


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("can't allocate memory: you ...")])
def test_smaller_batches_when_memory_runs_out(image, error):
    """On a CPU, PyTorch raises a plain RuntimeError."""
    forward = LittleMemory(2, error)
    result = sliding_window(image, forward, patch=PATCH, stride=HALF, batch=8)
    torch.testing.assert_close(result, image)
    assert forward.batches[:3] == [8, 4, 2]
    assert max(forward.batches[3:]) == 2


def test_other_failures_are_not_taken_for_a_lack_of_memory(image):
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sliding_window(image, LittleMemory(0, RuntimeError("shapes do not match")), patch=PATCH, stride=HALF)


def test_no_gradients_are_kept(image):
    weight = torch.ones(1, requires_grad=True)
    assert not sliding_window(image, lambda windows: windows * weight, patch=PATCH, stride=HALF).requires_grad


def test_low_precision_outputs_are_summed_in_float32():
    image = torch.rand(1, 24, 8, 8)
    result = sliding_window(
        image, lambda windows: windows.bfloat16(), patch=(8, 8, 8), stride=(1, 8, 8), weighting="uniform"
    )
    torch.testing.assert_close(result, image.bfloat16().float(), rtol=1e-6, atol=0)


WHOLE = PredictConfig(window="whole")


def test_tiling():
    whole = PredictConfig(window="whole", stride=(4, 4, 4))
    assert tiling((35, 50, 16), (32, 48, 32), whole) == ((48, 64, 16), (48, 64, 16))
    config = PredictConfig(stride=(18, 18, 4), overlap=0.25)
    assert tiling((200, 150, 88), (112, 112, 80), config) == ((112, 112, 80), (18, 18, 4))
    assert tiling((35, 50, 16), (32, 48, 32), whole, divisor=(20, 16, 16))[0] == (80, 64, 16)
    auto = PredictConfig(window="auto")
    assert tiling((40, 50, 16), (32, 48, 16), auto)[0] == (48, 64, 16), "twice a patch"
    assert tiling((40, 50, 17), (32, 48, 16), auto)[0] == (32, 48, 16)


def test_patches_are_taken_where_a_whole_pass_has_no_room():
    shape, patch = (203, 142, 88), (112, 112, 80)
    assert tiling(shape, patch, WHOLE, 208 * 144 * 96)[0] == (208, 144, 96)
    assert tiling(shape, patch, WHOLE, 208 * 144 * 96 - 1)[0] == patch
    assert tiling((100, 90, 70), patch, WHOLE, 0)[0] == (112, 96, 80), "not larger than a patch"


class UpTo:
    """Identity that fails on windows of more than so many voxels."""

    def __init__(self, voxels: int) -> None:
        self.voxels, self.seen = voxels, []

    def __call__(self, windows: Tensor) -> Tensor:
        self.seen.append(tuple(windows.shape[2:]))
        if windows[:, 0].numel() > self.voxels:
            raise torch.OutOfMemoryError
        return windows


@pytest.mark.parametrize(
    ("config", "voxels", "seen"),
    [
        (WHOLE, 10**9, [(32, 16, 16)]),
        (PredictConfig(), 10**9, [(16, 16, 16)] * 2),
        (WHOLE, 16**3, [(32, 16, 16), (16, 16, 16), (16, 16, 16)]),
    ],
    ids=["whole", "patches", "patches where memory runs out in a whole pass"],
)
def test_windows_that_the_settings_ask_for(config, voxels, seen):
    image, forward = torch.randn(1, 23, 16, 7), UpTo(voxels)
    result = covered(image, forward, patch=(16, 16, 16), config=config.model_copy(update={"batch": 1}))
    torch.testing.assert_close(result, image)
    assert forward.seen == seen


@pytest.mark.parametrize("kind", ["whole", "patch"])
def test_no_way_around_a_lack_of_memory(image, kind):
    with pytest.raises(UserError, match="too little memory"):
        covered(image, UpTo(10), patch=(16, 16, 16), config=PredictConfig(window=kind))


def test_room_grows_with_memory_and_shrinks_with_width(monkeypatch):
    monkeypatch.setattr("semivox.inference.windows.free_memory", lambda device: 2 * 8 * 4 * 1000)
    for name in ("supervised_pair", "labels_only"):
        method = create(name, {}, NetFactory(1, 2, width=4))
        assert room(method, CPU) == 250
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert room(method, CPU) == 500
    assert room(nn.Identity(), CPU) == inf


def test_free_memory(tmp_path):
    assert free_memory(CPU, tmp_path) is None
    info, limits = tmp_path / "proc" / "meminfo", tmp_path / "sys" / "fs" / "cgroup"
    for folder in (info.parent, limits):
        folder.mkdir(parents=True)
    info.write_text("MemTotal:       1000 kB\nMemAvailable:    600 kB\nHugePages_Total:   0\n")
    assert free_memory(CPU, tmp_path) == 600 * 1024
    (limits / "memory.max").write_text("max\n")
    (limits / "memory.current").write_text("5000\n")
    assert free_memory(CPU, tmp_path) == 600 * 1024
    (limits / "memory.max").write_text("9000\n")
    assert free_memory(CPU, tmp_path) == 4000
