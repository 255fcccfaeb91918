"""Calls in a process of their own, so that one that dies does not take the others with it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from semivox.errors import UserError
from semivox.io.process import DiedError, Process


class Failure(NamedTuple):
    """Why a call failed: one line for the report, and everything."""

    message: str
    details: str


class Worker:
    """Makes calls one after the other, with `isolate` in a process that is renewed after a failure."""

    def __init__(self, *, isolate: bool) -> None:
        self._isolate = isolate
        self._process: Process | None = None

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Failure | None:
        """Call it and return what went wrong; an interruption by the user is raised, and ends the process."""
        if not self._isolate:
            return attempt(function, *args, **kwargs)
        if self._process is None:
            self._process = Process(__name__)
        try:
            self._process.send(attempt, function, *args, **kwargs)
            failure: Failure | None = self._process.receive()
        except DiedError as error:
            failure = Failure(f"The process died: {error}", str(error))
        except BaseException:
            self.close()
            raise
        if failure is not None:
            self.close()
        return failure

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Failure | None:
    """Call it and return what went wrong."""
    try:
        function(*args, **kwargs)
    except UserError as error:
        return Failure(error.what, str(error))
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc())
    return None
