"""One function over many cases in worker processes, which end with their work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import TypeVar

from semivox.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    name: Callable[[Job], str],
    doing: str,
) -> Iterator[tuple[Job, Result]]:
    """Give each job with its result when it is done; only as many are handed out as can run.

    Args:
        function: of an importable module.
        jobs: what it is called with.
        workers: processes; 0 works in this one.
        name: of a job, for messages.
        doing: what is done with a case, for messages, e.g. "preparing".

    Raises:
        UserError: a worker died.
        Exception: what the function raises.
    """
    if workers == 0:
        for job in jobs:
            yield job, function(job)
        return
    waiting, running = iter(jobs), dict[Future[Result], Job]()
    module = function.__module__
    with ProcessPoolExecutor(workers, _context(module), _start_worker, (module,)) as pool:
        try:
            for job in islice(waiting, workers):
                running[pool.submit(function, job)] = job
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
                    for job in islice(waiting, 1):
                        running[pool.submit(function, job)] = job
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process died",
                found=f"no answer while {doing} {', '.join(map(name, running.values()))}",
                expected="a worker that ends with its case; most often memory ran out",
                do="run again with --workers 0: it goes on where it stopped, one case at a time",
            ) from error


def _context(module: str) -> BaseContext:
    """Give processes that inherit no threads; where possible, one of them imports the module for all."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def _start_worker(module: str) -> None:
    """Let the parent alone answer Ctrl-C, and let each worker use one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which most functions do later or never
    import_module(module)
