"""Freed memory stays with the process while asked for and is given back at the end; results do not change."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from semivox.methods import create
from semivox.nets import NetFactory, heap

BLOCK = 2**26  # bytes

needs_glibc = pytest.mark.skipif(heap._glibc() is None, reason="only with the C library of Linux")


IN_A_FRESH_PROCESS = f"""
import resource
from pathlib import Path
import numpy as np
from semivox.nets import heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def block():
    return np.ones({BLOCK}, np.uint8)
"""


def measured(code: str) -> list[int]:
    """What `code` prints in a process where nothing else has used the heap."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS + code], check=True, capture_output=True, text=True
    )
    return [int(word) for word in done.stdout.split()]


@needs_glibc
@pytest.mark.parametrize("kept", [True, False])
def test_a_freed_block_waits_for_the_next_of_its_size(kept):
    (grown,) = measured(f"""
from contextlib import nullcontext
with heap.kept() if {kept} else nullcontext():
    for _ in range(8):  # alignment leaves small rests between them at first
        block()
    waiting = resident()
    again = block()
    print(resident() - waiting)
""")
    assert grown < BLOCK / 4 if kept else grown > BLOCK * 3 / 4


@needs_glibc
def test_it_is_given_back_at_the_end_of_the_outermost_block():
    held, idle, rest, nothing = measured("""
before = resident()
with heap.kept():
    with heap.kept():
        block()
    print(resident() - before, heap.idle())
print(resident() - before, heap.idle())
""")
    assert held > BLOCK * 3 / 4 and idle >= BLOCK
    assert rest < BLOCK / 4 and nothing == 0


def test_nothing_happens_where_there_is_no_glibc(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with heap.kept():
        assert heap.idle() == 0
        assert heap._depth == 0


def test_it_ends_with_an_error():
    with pytest.raises(ValueError, match="stop"), heap.kept():
        raise ValueError("stop")
    assert heap._depth == 0


def test_results_are_the_same():
    net = create("supervised_pair", {}, NetFactory(1, 2, width=4)).eval()
    image = torch.randn(1, 1, 32, 32, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = net.predict(image)
        with heap.kept():
            assert torch.equal(net.predict(image), plain)
