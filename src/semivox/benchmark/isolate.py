"""Calls in a process of their own, so that one that dies does not take the others with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, NamedTuple

from semivox.errors import UserError


class Failure(NamedTuple):
    """Why a call failed: one line for the report, and everything."""

    message: str
    details: str


class Worker:
    """Makes calls one after the other, in one process that is renewed after a failure.

    Args:
        isolate: False makes them in this process.
    """

    def __init__(self, *, isolate: bool) -> None:
        self._isolate = isolate
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Failure | None:
        """Call it; what goes wrong is returned, but an interruption by the user goes on upwards."""
        if not self._isolate:
            return attempt(function, *args, **kwargs)
        try:
            pool = self._started()
            failure: Failure | None = pool.submit(attempt, function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            failure = Failure(
                "The process died: killed from outside, often because memory ran out", str(error)
            )
        except BaseException:  # this process is told to end: so must the other, whatever it is doing
            if self._pid:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGTERM)
            raise
        if failure is not None:
            self.close()
        return failure

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_end_with, initargs=(os.getpid(),))
            self._pid = self._pool.submit(os.getpid).result()
        return self._pool

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Failure | None:
    """Call it and return what went wrong."""
    try:
        function(*args, **kwargs)
    except UserError as error:
        return Failure(error.what, str(error))
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc())
    return None


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, so that a killed benchmark leaves nothing that writes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
