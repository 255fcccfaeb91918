"""What all benchmarks share: alternating runs, their medians, another process, peak memory, tables.

On a machine with other load, two things are compared by runs in turn, so that the load weighs on both alike.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self


class Seconds(NamedTuple):
    """Time of one run; `cpu` sums over the threads of this process, without child processes."""

    wall: float
    cpu: float


class Pair(NamedTuple):
    """Medians of both, and the median over the pairs of a's time / b's."""

    a: Seconds
    b: Seconds
    ratio: Seconds


def timed(run: Callable[[], object]) -> Seconds:
    """Run once."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def medians(runs: list[Seconds]) -> Seconds:
    """Compute the median of each kind of time."""
    return Seconds(median(run.wall for run in runs), median(run.cpu for run in runs))


def paired(a: Callable[[], object], b: Callable[[], object], repeats: int, *, warmup: int = 1) -> Pair:
    """Run two functions of this process alternately; see `alternating`."""
    return alternating(lambda: timed(a), lambda: timed(b), repeats, warmup=warmup)


def alternating(a: Callable[[], Seconds], b: Callable[[], Seconds], repeats: int, *, warmup: int = 1) -> Pair:
    """Run a, b, b, a, a, b, ...

    Args:
        a: run e.g. the peer and return its time.
        b: e.g. ours; `ratio` says how many times faster it is.
        repeats: measured runs of each.
        warmup: runs of each before these.
    """
    for _ in range(warmup):
        a()
        b()
    runs: dict[bool, list[Seconds]] = {True: [], False: []}
    for index in range(repeats):
        for first in (True, False) if index % 2 == 0 else (False, True):
            runs[first].append(a() if first else b())
    ratios = [Seconds(x.wall / y.wall, x.cpu / max(y.cpu, 1e-9)) for x, y in zip(*runs.values(), strict=True)]
    return Pair(medians(runs[True]), medians(runs[False]), medians(ratios))


class Elsewhere:
    """Call methods of an object that lives in another process, with an allocator of its own.

    Args:
        make: function of a module; called there with `arguments`, it returns the object.
        threads: of PyTorch there.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(make, arguments, threads))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def call(self, method: str, *arguments: Any) -> tuple[Any, Seconds]:
        """Return the method's result and its time."""
        return self._pool.submit(_call, method, arguments).result()

    def timed(self, method: str, *arguments: Any) -> Seconds:
        """Return the method's time."""
        return self.call(method, *arguments)[1]


_there: dict[str, Any] = {}  # in the other process


def _begin(make: Callable[..., Any], arguments: tuple[Any, ...], threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    _there["object"] = make(*arguments)


def _call(method: str, arguments: tuple[Any, ...]) -> tuple[Any, Seconds]:
    found: list[Any] = []
    seconds = timed(lambda: found.append(getattr(_there["object"], method)(*arguments)))
    return found[0], seconds


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB (2**20 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` may be that of the process that started this one
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Make a parser whose help is the script's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)


def head(*names: str) -> None:
    """Print the head of a Markdown table."""
    row(*names)
    print("|" + "---|" * len(names), flush=True)


def row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def triple(text: str) -> tuple[int, int, int]:
    """Read a size such as 64x64x48."""
    x, y, z = (int(side) for side in text.split("x"))
    return x, y, z
