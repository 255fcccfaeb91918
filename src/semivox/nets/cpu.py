"""What PyTorch's CPU kernels need to be right and quick; on other devices nothing here does anything.

Measured with PyTorch 2.13.0 on an Intel Xeon with AMX and AVX512-BF16, one thread, other jobs beside:
processor time of a step of `dual`, patches of 64x64x48, width 8 unless said otherwise, PyTorch's own way
and ours by turns, the smallest of 4 to 8 each. What saved less than 5 % of the step was removed.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv3d, pad

from semivox.losses.prediction import widen
from semivox.nets import Triple

CUBE: Triple = (3, 3, 3)
_LANES = 16  # channels that oneDNN's kernels compute at once
_AVX = "AVX" in torch.backends.cpu.get_cpu_capability()
_ONEDNN = _AVX and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class Conv(nn.Conv3d):
    """Convolution with an odd kernel that keeps the grid, or divides it by the stride.

    On a CPU, where the input's first side is 2 voxels, it computes in float32: oneDNN's bfloat16 gradient
    of the weights is wrong there, up to infinity and NaN (seen with PyTorch 2.13.0 and AVX512-BF16;
    `tests/nets/test_nets.py` compares the two).

    A single small map in float32 goes to oneDNN, too: PyTorch alone takes a kernel of its own for it. Saves
    14 % of a step of `supervised_pair` (one patch, width 16) and 35 % of a prediction: 725 -> 469 ms a
    window.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel: Triple = CUBE,
        *,
        stride: int | Triple = 1,
        bias: bool = True,
    ) -> None:
        x, y, z = (size // 2 for size in kernel)
        super().__init__(inputs, channels, kernel, stride=stride, padding=(x, y, z), bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, X / stride, ...)."""
        if input.device.type == "cpu" and input.shape[2] == 2:
            with torch.autocast("cpu", enabled=False):
                return self._quick(widen(input)).to(input.dtype)
        return self._quick(input)

    def _quick(self, input: Tensor) -> Tensor:
        small = len(input) == 1 and input.device.type == "cpu" and input.dtype == torch.float32
        if not small or torch.is_autocast_enabled("cpu") or not _ONEDNN:
            return super().forward(input)
        sides = [int(side) for side in self.padding]
        how = sides, self.stride, self.dilation, self.groups
        return torch.mkldnn_convolution(input, self.weight, self.bias, *how)


class Conv7x7x7(nn.Conv3d):
    """7x7x7 convolution without bias, padding 3, for images.

    In bfloat16 an image with one channel leaves most of a CPU's vector lanes idle. There, the 7 voxels
    along the last axis become channels of a 7x7x1 convolution, and with fewer than 16 outputs neighbouring
    voxels share one position; the result in channels-last memory is the same. Saves 13 % (batch
    normalisation, 1582 -> 1369 ms) to 19 % (instance normalisation; a prediction: 133 -> 108 ms a window);
    nothing in float32.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, kernel_size=7, padding=3, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, X, Y, Z)."""
        if input.device.type != "cpu" or self.in_channels > 1 or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        input = input.to(torch.get_autocast_dtype("cpu"))
        together = _LANES // self.out_channels
        if together == 0 or input.shape[4] % together:
            together = 1
        window = 6 + together
        lines = pad(input[:, 0], (3, 3)).unfold(3, window, together)  # (B, X, Y, Z / together, window)
        taps = torch.stack([pad(self.weight[:, 0], (i, together - 1 - i)) for i in range(together)])
        weight = taps.flatten(0, 1).movedim(3, 1).unsqueeze(4)  # (together * channels, window, 7, 7, 1)
        layout = torch.channels_last_3d
        lines = lines.movedim(4, 1).contiguous(memory_format=layout)
        result = conv3d(lines, weight.contiguous(memory_format=layout), padding=(3, 3, 0))
        rows = result.movedim(1, 4).reshape(*input.shape[:1], *input.shape[2:], self.out_channels)
        return rows.movedim(4, 1)


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation without running statistics; `affine` adds a learned scale and shift.

    PyTorch's moves channels-last memory into the other layout, and what follows has to live with that. On a
    CPU each sample is normalised as a batch of its own here: the same numbers, and the layout stays. Saves
    13 % in bfloat16 (1330 -> 1162 ms), 18 % in float32, 15 % of a prediction.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape; mean 0 and variance 1 of each sample's channels."""
        layout = torch.channels_last_3d
        if input.device.type != "cpu" or not len(input) or not input.is_contiguous(memory_format=layout):
            return super().forward(input)
        scale, shift, eps = self.weight, self.bias, self.eps
        parts = torch.split(input, 1)
        samples = [batch_norm(one, None, None, scale, shift, training=True, eps=eps) for one in parts]
        return torch.cat(samples) if len(samples) > 1 else samples[0]


_MIB = 2**20
_OPTIONS = {  # of mallopt(3), numbers from malloc.h: what keeps memory, and what glibc itself arrives at
    -1: (-1, 64 * _MIB),  # M_TRIM_THRESHOLD
    -2: (64 * _MIB, 128 * 1024),  # M_TOP_PAD
    -3: (32 * _MIB, 32 * _MIB),  # M_MMAP_THRESHOLD
    -4: (0, 65536),  # M_MMAP_MAX
}
_HUGE_PAGES = 14  # MADV_HUGEPAGE of madvise(2)
_PAGE, _RESERVED = 4096, 4096 * _MIB
_depth = 0


@contextmanager
def kept() -> Iterator[None]:
    """Keep glibc from returning freed memory to the OS until the outermost block ends; use huge pages for it.

    Otherwise the system clears every page anew at the next layer, and a step allocates gigabytes. No
    result changes. With another C library than glibc nothing happens. Keeping memory saves 21 % in bfloat16
    (1807 -> 1426 ms), 11 to 17 % in float32, 14 % of a prediction. Pages of 2 MiB save 10 % more of a step
    of the default method (411 -> 367 ms).
    """
    global _depth  # noqa: PLW0603
    libc = _glibc()
    if libc is None:
        yield
        return
    if _depth == 0:
        for option, (keep, _) in _OPTIONS.items():
            libc.mallopt(option, keep)
        _advise_huge_pages(libc)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            for option, (_, usual) in _OPTIONS.items():
                libc.mallopt(option, usual)
            libc.malloc_trim(0)


def idle() -> int:
    """Return the bytes that `kept` holds ready for this process; the OS counts them as used."""
    libc = _glibc() if _depth else None
    if libc is None or not hasattr(libc, "mallinfo2"):  # glibc before 2.33: its numbers overflow at 2 GB
        return 0
    libc.mallinfo2.restype = _Info
    maps = Path("/proc/self/smaps").read_text(errors="replace")
    heaps = re.findall(r"\[heap\]\n(?:.*\n)*?Rss: +(\d+) kB", maps)
    return max(0, sum(map(int, heaps)) * 1024 - int(libc.mallinfo2().bytes[7]))


class _Info(ctypes.Structure):
    """`struct mallinfo2`: ten numbers of bytes, the eighth of them (`uordblks`) those in use."""

    _fields_ = (("bytes", ctypes.c_size_t * 10),)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None


def _advise_huge_pages(libc: ctypes.CDLL) -> None:
    """Let the heap grow by address space alone, and ask the system for huge pages where it is touched."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    place = libc.malloc(_RESERVED)
    if place:  # none where the address space is limited
        libc.madvise(-(-place // _PAGE) * _PAGE, _RESERVED - _PAGE, _HUGE_PAGES)
        libc.free(place)
