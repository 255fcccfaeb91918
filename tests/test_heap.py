"""Freed memory stays with the process while asked for and is given back at the end; results do not change."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from semivox import heap
from semivox.methods import create
from semivox.nets import NetFactory

BLOCK = 2**24  # float32 numbers: 64 MiB

needs_glibc = pytest.mark.skipif(heap._glibc() is None, reason="only with the C library of Linux")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@needs_glibc
def test_a_freed_block_waits_for_the_next_of_its_size():
    with heap.kept():
        for _ in range(8):  # alignment leaves small rests between them at first
            torch.ones(BLOCK)
        waiting = resident()
        block = torch.ones(BLOCK)
        assert resident() - waiting < BLOCK
        del block


@needs_glibc
def test_it_is_given_back_at_the_end_of_the_outermost_block():
    with heap.kept():
        pass  # gives back what other tests have left
    before = resident()
    with heap.kept():
        with heap.kept():
            torch.ones(BLOCK)
        assert resident() - before > BLOCK * 3
        assert heap.idle() >= BLOCK * 4
    assert resident() - before < BLOCK
    assert heap.idle() == 0


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
