"""Which device and which arithmetic to use."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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
    best = {"auto": "cuda" if cuda else "cpu", "gpu": "mps" if mps and not cuda else "cuda"}
    kind, _, index = best.get(setting, setting).partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (index == "" or index.isdecimal()):
        known = "auto, cpu or gpu (or cuda:1 for the second GPU)"
        raise UserError("Unknown device", setting, known, "use auto")
    there = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}
    if int(index or 0) >= there[kind]:
        seen = f"{there['cuda']} CUDA device(s)" if cuda else "no such device"
        found = f"{setting} asked, PyTorch {torch.__version__} sees {seen}"
        do = "use cpu, or install a PyTorch build that fits the GPU"
        raise UserError("The device is not available", found, do=do)
    return torch.device("cpu") if kind == "cpu" else torch.device(kind, int(index or 0))


def device_name(device: torch.device) -> str:
    """Return what the maker calls the GPU or the processor, else the kind of device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return processor_name() if device.type == "cpu" else device.type


def processor_name() -> str:
    """Return what the maker calls the processor."""
    return _of_kernel("model name") or platform.processor() or platform.machine() or "cpu"


def _of_kernel(name: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what Linux says of the first processor under this name; empty elsewhere."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


_CLEARLY = 1.1  # times as fast as float32, for the loss of digits


def prefers_bf16(device: torch.device) -> bool:
    """Tell whether the networks run faster in bfloat16 than in float32 on `device`.

    On a GPU its instructions decide. Some CPUs have them and are slower with them than in float32, so there
    both are tried once a process, in some hundredths of a second, on one thread: several of them wait for
    each other beside other work, and then the answer, and with it a run's result, would depend on that work.
    """
    if device.type == "cpu":
        return has_bf16(device) and _cpu_gain() >= _CLEARLY
    return has_bf16(device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch work on one thread: powers and sums differ in the last bit with their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _cpu_gain(repeats: int = 5) -> float:
    """Return the time of a convolution in float32 / in bfloat16, both passes, the best of several."""
    image, weight = (
        torch.full(shape, 0.1).to(memory_format=torch.channels_last_3d).requires_grad_()
        for shape in ((2, 16, 32, 32, 32), (16, 16, 3, 3, 3))
    )

    def trial(*, half: bool) -> float:
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            started = time.perf_counter()
            torch.autograd.grad(torch.conv3d(image, weight, padding=1).sum(), [image, weight])
        return time.perf_counter() - started

    with one_thread():
        for half in (False, True):
            trial(half=half)  # builds the kernels
        trials = [(trial(half=False), trial(half=True)) for _ in range(repeats)]
    return min(single for single, _ in trials) / min(half for _, half in trials)


def has_bf16(device: torch.device) -> bool:
    """Tell whether `device` has bfloat16 instructions; emulation, slower than 32 bit, does not count."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return _cpu_has_bf16()
    return False


def _cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Look for AVX512-BF16 or AMX-BF16 in what PyTorch reports or, where it does not, the kernel."""
    flags = {"avx512_bf16", "amx_bf16"}
    reported: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # absent in older versions
    if flags & reported.keys():
        return any(bool(reported.get(flag)) for flag in flags)
    return not flags.isdisjoint(_of_kernel("flags", cpuinfo).split())
