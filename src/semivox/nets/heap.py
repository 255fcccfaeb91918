"""Memory that a process has freed stays with it, for networks on a CPU.

The C library of Linux hands large blocks back to the system as soon as they are freed and asks for them anew
at the next layer; the system then clears every page again. A training step allocates and frees several
gigabytes so. What `kept` changes is where freed memory waits, never a result. GPUs have PyTorch's own cache,
and other C libraries are left alone: there it does nothing.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # names of mallopt(3), from malloc.h
_MIB = 2**20
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 * _MIB}
_USUAL = {  # of glibc once a program has freed some large blocks: its thresholds rise by themselves
    _MMAP_MAX: 65536,
    _MMAP_THRESHOLD: 32 * _MIB,
    _TRIM_THRESHOLD: 64 * _MIB,
    _TOP_PAD: 128 * 1024,
}
_depth = 0


@contextmanager
def kept() -> Iterator[None]:
    """Keep freed memory within the process until the end of the outermost block, then give it back."""
    global _depth  # noqa: PLW0603
    libc = _glibc()
    if libc is None:
        yield
        return
    if _depth == 0:
        _set(libc, _KEEP)
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            _set(libc, _USUAL)
            libc.malloc_trim(0)


def idle() -> int:
    """Bytes that `kept` holds ready for this process; the system counts them as used."""
    libc = _glibc() if _depth else None
    if libc is None or not hasattr(libc, "mallinfo2"):  # glibc before 2.33: its numbers overflow at 2 GB
        return 0
    libc.mallinfo2.restype = _Info
    return int(libc.mallinfo2().fordblks)


class _Info(ctypes.Structure):
    """`struct mallinfo2`."""

    _fields_ = (
        ("before", ctypes.c_size_t * 8),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )


def _glibc() -> ctypes.CDLL | None:
    """The C library this process runs with, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)
