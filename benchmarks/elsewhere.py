"""Something to time in a process of its own, where it has its own way of handing out memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

from timing import Seconds, timed


class Elsewhere:
    """Calls methods of an object that lives in another process.

    Args:
        make: called there with `arguments`; gives the object. A function of a module.
        threads: of PyTorch there.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments, threads), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()

    def call(self, method: str, *arguments: Any) -> tuple[Any, Seconds]:
        """What the method returns, and its time."""
        self._pipe.send((method, arguments))
        result, seconds = self._pipe.recv()
        return result, seconds

    def timed(self, method: str, *arguments: Any) -> Seconds:
        """How long the method takes."""
        return self.call(method, *arguments)[1]


def _serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...], threads: int) -> None:
    """Call what is asked for until the other end is closed."""
    torch.set_num_threads(threads)
    target = make(*arguments)
    while True:
        try:
            method, values = pipe.recv()
        except EOFError:
            return
        found: list[Any] = []
        seconds = timed(lambda: found.append(getattr(target, method)(*values)))  # noqa: B023
        pipe.send((found[0], seconds))
