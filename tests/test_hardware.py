"""Devices and what they can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from semivox import hardware
from semivox.errors import UserError
from semivox.hardware import resolve_device

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("capabilities", "cpuinfo", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "", True),
        ({"avx512_bf16": False, "amx_bf16": True}, "", True),
        ({"avx512_bf16": False, "amx_bf16": False}, "flags : avx512_bf16", False),
        ({}, "processor : 0\nflags : fpu avx2 amx_bf16 sse\n", True),
        ({}, "flags : fpu avx2 avx512_bf16x\n", False),
        (None, "", False),
    ],
)
def test_cpu_flags(
    capabilities: dict[str, bool] | None,
    cpuinfo: str,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if capabilities is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert hardware._cpu_has_bf16(tmp_path / "cpuinfo") is expected
    assert hardware._cpu_has_bf16(tmp_path / "absent") is (expected and not cpuinfo)


@pytest.mark.parametrize(
    ("instructions", "gain", "expected"), [(True, 1.9, True), (True, 0.6, False), (False, 1.9, False)]
)
def test_a_cpu_uses_bfloat16_only_where_a_trial_says_so(
    instructions: bool, gain: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_cpu_has_bf16", lambda: instructions)
    monkeypatch.setattr(hardware, "_cpu_gain", lambda: gain)
    assert hardware.prefers_bf16(CPU) is expected


@pytest.mark.parametrize("there", [True, False])
def test_the_instructions_of_a_gpu_decide(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: there)
    assert hardware.has_bf16(CUDA) is hardware.prefers_bf16(CUDA) is there


def test_the_trial_gives_a_ratio_and_draws_no_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, convolve, before = [], torch.conv3d, torch.get_rng_state()

    def seen(*args: Any, **options: Any) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return convolve(*args, **options)

    monkeypatch.setattr(torch, "conv3d", seen)
    hardware._cpu_gain.cache_clear()
    number = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.no_grad():
        assert 0.01 < hardware._cpu_gain(repeats=1) < 100
    assert set(threads) == {1}  # more of them would wait for each other beside other work
    assert torch.get_num_threads() == 2
    torch.set_num_threads(number)
    assert torch.equal(torch.get_rng_state(), before)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    for asked in ("gpu", "cuda:0", "mps"):
        with pytest.raises(UserError, match="not available"):
            resolve_device(asked)
    with pytest.raises(UserError, match="Unknown device"):
        resolve_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("gpu") == resolve_device("cuda") == CUDA
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="not available"):
        resolve_device("cuda:2")
