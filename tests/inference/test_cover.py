"""Which windows the settings give, and what happens when memory runs out."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor, nn

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference.cover import covered, free_memory, room, tiling
from semivox.methods import create
from semivox.nets import NetFactory

PATCH = (32, 48, 16)
WHOLE = PredictConfig(window="whole")
CPU = torch.device("cpu")


def window(shape, patch, config, **limits):
    return tiling(shape, patch, config, **limits)["patch"]


def test_whole():
    config = PredictConfig(window="whole", stride=(4, 4, 4))
    asked = tiling((35, 50, 16), (32, 48, 32), config)
    assert asked == {"patch": (48, 64, 16), "stride": None, "overlap": 0.0}


def test_patches_take_stride_and_overlap_as_they_are():
    config = PredictConfig(stride=(18, 18, 4), overlap=0.25)
    assert tiling((200, 150, 88), (112, 112, 80), config) == {
        "patch": (112, 112, 80),
        "stride": (18, 18, 4),
        "overlap": 0.25,
    }


def test_patches_are_taken_where_a_whole_pass_has_no_room():
    shape, patch, config = (203, 142, 88), (112, 112, 80), PredictConfig(window="whole")
    assert window(shape, patch, config, room=208 * 144 * 96) == (208, 144, 96)
    assert window(shape, patch, config, room=208 * 144 * 96 - 1) == patch
    assert window((100, 90, 70), patch, config, room=0) == (112, 96, 80), "not larger than a patch"


class UpTo:
    """Identity that fails on windows of more than so many voxels."""

    def __init__(self, voxels: int) -> None:
        self.voxels, self.seen = voxels, []

    def __call__(self, windows: Tensor) -> Tensor:
        self.seen.append(tuple(windows.shape[2:]))
        if windows[:, 0].numel() > self.voxels:
            raise torch.OutOfMemoryError
        return windows


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, PATCH[0] + 7, PATCH[1], PATCH[2] - 9, generator=torch.Generator().manual_seed(0))


def test_one_pass_gives_the_same_as_patches(image):
    whole, patches = UpTo(10**9), UpTo(10**9)
    a = covered(image, whole, patch=PATCH, config=WHOLE)
    b = covered(image, patches, patch=PATCH, config=PredictConfig())
    assert whole.seen == [(PATCH[0] + 16, *PATCH[1:])]
    assert set(patches.seen) == {PATCH}
    torch.testing.assert_close(a, image)
    torch.testing.assert_close(b, image)


def test_patches_follow_when_memory_runs_out_in_a_whole_pass(image):
    forward = UpTo(PATCH[0] * PATCH[1] * PATCH[2])
    result = covered(image, forward, patch=PATCH, config=WHOLE)
    assert forward.seen[0] == (PATCH[0] + 16, *PATCH[1:])
    assert set(forward.seen[1:]) == {PATCH}
    torch.testing.assert_close(result, image)


@pytest.mark.parametrize(("kind", "voxels"), [("whole", 10), ("patch", 10)])
def test_no_way_around_a_lack_of_memory(image, kind, voxels):
    with pytest.raises(UserError, match="too little memory"):
        covered(image, UpTo(voxels), patch=PATCH, config=PredictConfig(window=kind))


def test_room_grows_with_memory_and_shrinks_with_width(monkeypatch):
    monkeypatch.setattr("semivox.inference.cover.free_memory", lambda device: 2 * 8 * 4 * 1000)
    assert room(create("supervised_pair", {}, NetFactory(1, 2, width=4)), CPU) == 250
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert room(create("supervised_pair", {}, NetFactory(1, 2, width=4)), CPU) == 500
    assert room(nn.Identity(), CPU) == inf


def test_free_memory(tmp_path):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       1000 kB\nMemAvailable:    600 kB\nHugePages_Total:   0\n")
    limits = tmp_path / "cgroup"
    limits.mkdir()
    assert free_memory(CPU, info, limits) == 600 * 1024
    (limits / "memory.max").write_text("max\n")
    (limits / "memory.current").write_text("5000\n")
    assert free_memory(CPU, info, limits) == 600 * 1024
    (limits / "memory.max").write_text("9000\n")
    assert free_memory(CPU, info, limits) == 4000
    assert free_memory(CPU, tmp_path / "absent", limits) is None
