"""Which device and which arithmetic to use."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from semivox.errors import UserError


def resolve_device(setting: str) -> torch.device:
    """Turn a setting into a device; `auto` is the CUDA GPU if there is one, else the CPU.

    Besides auto, cpu and gpu, `cuda`, `cuda:1` and `mps` are understood.

    Raises:
        UserError: unknown name, or hardware that is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if setting == "auto":
        return torch.device("cuda", 0) if cuda else torch.device("cpu")
    if setting == "gpu" and (cuda or mps):
        return torch.device("cuda", 0) if cuda else torch.device("mps")
    kind, _, index = setting.partition(":")
    if kind not in ("cpu", "gpu", "cuda", "mps") or not (index == "" or index.isdecimal()):
        raise UserError(
            "Unknown device",
            found=setting,
            expected="auto, cpu or gpu (or cuda:1 for the second GPU)",
            do="use auto",
        )
    there = {"cpu": True, "gpu": cuda, "cuda": cuda, "mps": mps}[kind]
    count = torch.cuda.device_count() if kind in ("gpu", "cuda") and cuda else 1
    if not there or int(index or 0) >= count:
        raise UserError(
            "The device is not available",
            found=f"{setting} asked, PyTorch {torch.__version__} sees "
            + (f"{torch.cuda.device_count()} CUDA device(s)" if cuda else "no such device"),
            expected="a device that PyTorch can use",
            do="use cpu, or install a PyTorch build that fits the GPU",
        )
    if kind == "cpu":
        return torch.device("cpu")
    return torch.device("cuda" if kind == "gpu" else kind, int(index or 0))


def device_name(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the maker calls the GPU or the processor, else the kind of device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "cpu":
        try:
            lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return named[0] if named else platform.processor() or platform.machine() or "cpu"
    return device.type


def has_bf16(device: torch.device) -> bool:
    """Whether `device` has bfloat16 instructions (emulation does not count: it is slower than 32 bit)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return _cpu_has_bf16()
    return False


def _cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """AVX512-BF16 or AMX-BF16, as PyTorch reports it or, where it does not tell, the kernel."""
    flags = ("avx512_bf16", "amx_bf16")
    try:
        capabilities = torch.cpu.get_capabilities()
        if any(flag in capabilities for flag in flags):
            return any(bool(capabilities.get(flag)) for flag in flags)
    except (AttributeError, RuntimeError):
        pass
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    words = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    return not words.isdisjoint(flags)
