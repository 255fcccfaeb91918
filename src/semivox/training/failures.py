"""What ends a run before its time, in words that a user can act on: failures, and signals."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from semivox import errors
from semivox.errors import UserError

_GRACE_S = 120
_MARK = "semivox.errors.UserError: "


@contextmanager
def explained() -> Iterator[None]:
    """Turn failures inside the block that a user can mend into a `UserError`.

    Covers memory that ran out, loader processes that died, and a `UserError` of a loader process, which
    arrives wrapped in that process's traceback.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        first, _, _ = text.partition("\n")
        if isinstance(error, UserError) and _MARK in text:
            raise UserError(text.rsplit(_MARK, 1)[1].strip()) from error
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
            do = "a smaller patch (plan.patch), fewer patches a step (method.batch), or train.precision=bf16"
            raise UserError("The device ran out of memory", first, do=do) from error
        if isinstance(error, RuntimeError) and re.search(r"DataLoader worker .*(killed|exited)", text):
            do = "--set train.workers=0, which takes less memory; the same command resumes"
            raise UserError("A loader process died", first, do=do) from error
        raise


class Interruption:
    """SIGINT and SIGTERM, noted instead of acted upon while a step is under way."""

    pending: int | None = None  # the signal that came

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; the second one ends the run at once, without a checkpoint."""
        if self.pending is not None:
            raise self.error()
        self.pending = number

    def error(self) -> KeyboardInterrupt:
        """Return the exception that stands for the signal: its exit code is 130, or 143 for SIGTERM."""
        return KeyboardInterrupt() if self.pending == signal.SIGINT else errors.Terminated()


@contextmanager
def deferred_signals() -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM inside the block; only the main thread can do so, elsewhere nothing changes."""
    interruption, before = Interruption(), {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interruption)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def outlive_signals(worker: int) -> None:
    """Leave SIGINT and SIGTERM to the main process: a loader process, which may get them too, lives on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_S))
