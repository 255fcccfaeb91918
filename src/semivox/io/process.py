"""A process that calls functions, within limits of memory, and sends back what they return."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from semivox.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
HERE = SimpleNamespace(guarded=False, first=0)  # has a limit of memory; process that has started others


class DiedError(Exception):
    """A process ended, or did not answer in time; the text says which."""


class Process:
    """A process that imports `module` and then calls functions one after the other.

    It may allocate `memory` bytes; None: no limit, and it may start processes itself. `quiet` drops what
    libraries print.
    """

    def __init__(self, module: str, *, memory: int | None = None, quiet: bool = False) -> None:
        HERE.first = HERE.first or os.getpid()
        own = HERE.first == os.getpid()  # a fork of the user's process cannot use its parent's fork server
        forking = own and "forkserver" in get_all_start_methods()
        context = get_context("forkserver" if forking else "spawn")
        if forking:  # inherits no threads
            context.set_forkserver_preload([__name__, "semivox.io.volume", module])
        self.connection, other = context.Pipe()
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(other, module, memory, quiet), daemon=memory is not None
        )
        with without_main(), _uninterrupted(), other:
            self._process.start()

    def send(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Let it call a function of an importable module, in the current folder."""
        with suppress(OSError):
            _send(self.connection, (Path.cwd(), function, args, kwargs))

    @property
    def is_alive(self) -> bool:
        """Whether it can be called."""
        return not self.connection.closed and self._process.is_alive()

    def receive(self, limit_s: float | None = None) -> Any:
        """Wait for the result, or raise what the function raised; `DiedError`: it ended, or took too long."""
        try:
            if not self.connection.poll(limit_s):
                self.close()
                raise DiedError(f"no answer within {limit_s:.0f} seconds")
            good, value = _receive(self.connection)
        except (EOFError, OSError) as error:
            raise DiedError(self._end()) from error
        if good:
            return value
        raise value

    def _end(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        self.close()
        if code is None or code >= 0:
            return f"the process ended with exit code {code}"
        often = ", most often because memory ran out" if code == -signal.SIGKILL else ""
        return f"the process ended with {signal.Signals(-code).name}{often}"

    def close(self, patience_s: float = 2.0) -> None:
        """End the process; a call in progress has `patience_s` to remove its unfinished files."""
        self.connection.close()
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(patience_s)
            self._process.kill()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait: a process whose start is cut off would print a traceback.

    Handlers keep them, because a signal that this thread blocks comes to another one (NumPy has some), and
    Python then calls its handler here. The mask is for the process that starts, which inherits it.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    caught: list[int] = []
    handlers = {one: signal.signal(one, lambda number, _: caught.append(number)) for one in _SIGNALS}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for one, handler in handlers.items():
            signal.signal(one, handler or signal.SIG_DFL)
        if caught:
            signal.raise_signal(caught[0])


@contextmanager
def without_main() -> Iterator[None]:
    """Keep processes that start within this block from running the user's script again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(calls: Connection, module: str, memory: int | None, quiet: bool) -> None:
    """Answer calls until the other side closes the connection; the main function of a process."""
    HERE.guarded = memory is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent alone answers Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # removes unfinished files
    if hasattr(signal, "pthread_sigmask"):  # inherited from `_uninterrupted`; a signal may be waiting
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if memory is not None:
        _set_limits(memory)
        os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when a function imports it
    if quiet:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    import_module(module)
    while True:
        try:
            folder, function, args, kwargs = _receive(calls)
        except (EOFError, OSError):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # of `close`: no traceback of what runs at exit
            return
        try:
            os.chdir(folder)
            answer: tuple[bool, Any] = True, function(*args, **kwargs)
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(traceback.format_exc())
            answer = False, error
        try:
            _send(calls, answer)
        except OSError:
            return
        except Exception as error:  # it cannot be pickled
            _send(calls, (False, RuntimeError(f"{error}: {answer[1]!r}"[:2000])))


def _end_with_parent() -> None:
    """Leave nothing that still writes when the parent was killed."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _set_limits(memory: int) -> None:
    with suppress(ImportError, OSError, ValueError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _send(connection: Connection, value: Any) -> None:
    """Send an object; its arrays follow as they are, without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, 5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    connection.send((head, [array.nbytes for array in arrays]))
    for array in arrays:
        connection.send_bytes(array)


def _receive(connection: Connection) -> Any:
    head, sizes = connection.recv()
    arrays = [bytearray(size) for size in sizes]
    for array in arrays:
        connection.recv_bytes_into(array)
    return pickle.loads(head, buffers=arrays)
