"""Compare two ways of doing the same: alternating runs, medians of wall-clock and processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple


class Seconds(NamedTuple):
    """Time of one run; `cpu` sums over the threads of this process, and child processes do not count."""

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
    """Median of each kind of time."""
    return Seconds(median(run.wall for run in runs), median(run.cpu for run in runs))


def paired(a: Callable[[], object], b: Callable[[], object], repeats: int, *, warmup: int = 1) -> Pair:
    """Run two things of this process by turns; see `alternating`."""
    return alternating(lambda: timed(a), lambda: timed(b), repeats, warmup=warmup)


def alternating(a: Callable[[], Seconds], b: Callable[[], Seconds], repeats: int, *, warmup: int = 1) -> Pair:
    """Run a, b, b, a, a, b, ...: other load on the machine, and its drift, then weigh on both alike.

    Args:
        a: runs e.g. the peer and tells the time.
        b: e.g. ours; `ratio` says how many times faster it is.
        repeats: measured runs of each.
        warmup: runs of each before.
    """
    for _ in range(warmup):
        a()
        b()
    runs: dict[bool, list[Seconds]] = {True: [], False: []}
    for index in range(repeats):
        for first in (True, False) if index % 2 == 0 else (False, True):
            runs[first].append(a() if first else b())
    ratios = [
        Seconds(x.wall / y.wall, x.cpu / max(y.cpu, 1e-9))
        for x, y in zip(runs[True], runs[False], strict=True)
    ]
    return Pair(medians(runs[True]), medians(runs[False]), medians(ratios))
