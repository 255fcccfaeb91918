"""Guarded reading: one process reads untrusted files, a pool of processes works on many cases.

A scan of unknown origin can crash the library that reads it, keep it busy for ever, or announce more voxels
than the machine has memory for. So another process reads it; when that goes wrong, the user gets one message
that names the file, and a new process reads the next one.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import wraps
from importlib import import_module
from math import prod
from multiprocessing import connection, current_process
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar, cast

from semivox.errors import UserError, listed
from semivox.io.formats import BadFileError, out_of_memory, too_large
from semivox.io.process import HERE, DiedError, Process

Job = TypeVar("Job")
Result = TypeVar("Result")
Given = ParamSpec("Given")

READ_LIMIT_S = 900.0  # one scan, also from a slow network drive
CASE_LIMIT_S = 3600.0  # one case of a pool: read, resampled, drawn or scored
_LOOK_S = 30.0  # how often the pool looks for cases that take too long
_MEMORY_SHARE = 0.9  # of the machine's memory that one process may take
_WORKING_BYTES = 4  # the float32 copy that is made of every voxel
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_reader = SimpleNamespace(process=None, owner=0, lock=threading.RLock())


def guarded(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Make a function that opens untrusted files run in the guarded reader process.

    Its first argument is the path that messages name, a sequence of paths or something with an attribute
    `path`. Within a worker of a pool, which is guarded itself, the function runs at once.
    """

    @wraps(function)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if HERE.guarded or current_process().daemon:
            return function(*args, **kwargs)
        path = _path(next(iter((*args, *kwargs.values()))))
        with _reader.lock:
            reader = _started_reader()
            try:
                reader.send(_call, function.__module__, function.__qualname__, *args, **kwargs)
                return cast(Result, reader.receive(READ_LIMIT_S))
            except DiedError as error:
                what = "The file ended the process that read it, or took too long"
                do = "it is damaged or of another format: copy or download it again, or convert it"
                raise BadFileError(what, str(error), "a file that can be read", do, path) from None
            except Exception as error:
                if out_of_memory(error) and not isinstance(error, UserError):
                    raise too_large(path, str(error) or "MemoryError") from None
                raise
            except BaseException:  # interrupted: the answer to come belongs to no call
                reader.close()
                raise

    return wrapper


def _call(module: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a function by its name, which is the original even if the caller has wrapped it."""
    return getattr(import_module(module), name)(*args, **kwargs)


def _started_reader() -> Process:
    process: Process | None = _reader.process
    if process is None or _reader.owner != os.getpid() or not process.is_alive:
        process = Process("semivox.io.volume", memory=_limit(), quiet=True)
        _reader.process, _reader.owner = process, os.getpid()
    return process


def _path(argument: object) -> Path | None:
    if isinstance(argument, Sequence) and not isinstance(argument, str) and argument:
        argument = argument[0]
    found = getattr(argument, "path", argument)
    return found if isinstance(found, Path) else None


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    name: Callable[[Job], str],
    doing: str,
) -> Iterator[tuple[Job, Result]]:
    """Yield each job with its result when it is done; a bad file does not stop the other jobs.

    Args:
        function: of an importable module, or a `partial` of one; called with each job.
        workers: processes; 0 works in this one.
        name, doing: of a job, and what is done with it ("preparing"), for messages.

    Raises:
        UserError: at the end: files that cannot be used, cases that ended their worker, took too long or did
            not fit into memory; all else that the function raises is raised at once.
    """
    failed: dict[str, UserError] = {}
    here = ((job, _outcome(function, job)) for job in jobs)
    for job, value in _in_pool(function, jobs, min(workers, len(jobs))) if workers else here:
        if not isinstance(value, Exception):
            yield job, value
        elif isinstance(value, BadFileError):
            failed[name(job)] = value
        elif isinstance(value, DiedError):
            what, do = f"A worker process died while {doing} {name(job)}", "run again with --workers 0"
            failed[name(job)] = UserError(what, str(value), None, do)
        elif out_of_memory(value) and not isinstance(value, UserError):
            failed[name(job)] = too_large(None, f"{name(job)}: {value or 'MemoryError'}")
        else:
            raise value
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        what, advice = f"{len(failed)} of {len(jobs)} cases failed ({doing})", {e.do for e in failed.values()}
        do = f"for each: {advice.pop()}" if len(advice) == 1 else "repair or remove these files"
        raise UserError(what, listed(failed), None, do)


def _outcome(function: Callable[..., Result], *args: Any) -> Result | Exception:
    try:
        return function(*args)
    except Exception as error:
        return error


def _in_pool(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | Exception]]:
    waiting, running = list(reversed(jobs)), dict[Process, tuple[Job, float]]()
    idle = [_worker(function) for _ in range(workers)]
    try:
        while waiting or running:
            while idle and waiting:
                job, worker = waiting.pop(), idle.pop()
                worker.send(function, job)
                running[worker] = job, time.monotonic() + CASE_LIMIT_S
            ready = connection.wait([worker.connection for worker in running], timeout=_LOOK_S)
            for worker, (job, end) in list(running.items()):
                if worker.connection not in ready and time.monotonic() < end:
                    continue
                del running[worker]
                outcome = _outcome(worker.receive, READ_LIMIT_S if worker.connection in ready else 0.01)
                idle.append(_worker(function) if isinstance(outcome, DiedError) and waiting else worker)
                yield job, outcome
    finally:
        for worker in (*idle, *running):
            worker.close()


def _worker(function: Callable[..., Any]) -> Process:
    return Process(getattr(function, "func", function).__module__, memory=_limit())


def machine_memory() -> int | None:
    """Return the memory of this machine or container in bytes; None where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in map(Path, _CGROUP_LIMITS):
        with suppress(OSError, ValueError):  # absent, or "max"
            memory = min(memory, int(file.read_text()))
    return memory


def check_memory(shape: Sequence[int], itemsize: int, path: Path | None = None) -> None:
    """Refuse a scan of more voxels than fit into this machine's memory, before any is allocated.

    Of each voxel there are `itemsize` bytes, and a float32 copy.
    """
    memory, sides = machine_memory(), tuple(map(int, shape))
    if memory is not None and prod(sides) * (itemsize + _WORKING_BYTES) > memory:
        found = f"{' x '.join(map(str, sides))} voxels of {itemsize} bytes"
        raise too_large(path, found, f"at most {memory / 1e9:.0f} GB, with a float32 copy")


def _limit() -> int:
    return int(_MEMORY_SHARE * (machine_memory() or sys.maxsize))
