"""What ends a run before its time, in words that a user can act on: failures, and signals."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader

from semivox import errors
from semivox.errors import UserError
from semivox.methods.base import Method

_GRACE_S = 120
_MARK = "semivox.errors.UserError: "
_CALMER = "a smaller --set train.lr, or --set train.precision=32; then start over with --fresh"
_BEFORE = "training stopped and the last checkpoint holds the weights from before"


@contextmanager
def explained() -> Iterator[None]:
    """Turn failures inside the block that `readable` knows into a `UserError`."""
    try:
        yield
    except Exception as error:
        known = readable(error)
        if known is None:
            raise
        raise known from error


def readable(error: BaseException) -> UserError | None:
    """Return the `UserError` that stands for `error`, or None if `error` speaks for itself.

    Covers memory that ran out, loader processes that died, and a `UserError` of a loader process, which
    arrives wrapped in that process's traceback.
    """
    text = str(error)
    if isinstance(error, UserError):
        return UserError(text.rsplit(_MARK, 1)[1].strip()) if _MARK in text else None
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        do = "a smaller patch (plan.patch), fewer patches a step (method.batch), or train.precision=bf16"
        return UserError("The device ran out of memory", text.splitlines()[0], do=do)
    if isinstance(error, RuntimeError) and re.search(r"DataLoader worker .*(killed|exited)", text):
        do = "--set train.workers=0, which takes less memory; the same command resumes"
        return UserError("A loader process died", text.splitlines()[0], do=do)
    return None


def not_finite(first: Mapping[str, int], iterations: int) -> UserError:
    """Return the error for losses that became NaN or infinite, each `first` at an iteration (from 1)."""
    found = ", ".join(f"{name} (iteration {at})" for name, at in sorted(first.items(), key=lambda x: x[1]))
    what = f"The loss is not finite at iteration {min(first.values())} of {iterations}"
    return UserError(what, found, f"finite loss terms; {_BEFORE}", _CALMER)


def require_finite(method: Method, iteration: int) -> None:
    """Raise a `UserError` if a parameter holds NaN or infinity (reads one number from the device)."""
    parameters = [parameter.detach() for parameter in method.parameters()]
    if not bool(torch.nn.utils.get_total_norm(parameters).isfinite()):
        found = "NaN or infinity in the parameters while every loss term was finite"
        what = f"The weights are not finite after iteration {iteration}"
        raise UserError(what, found, f"finite weights; {_BEFORE}", _CALMER)


class Interruption:
    """SIGINT and SIGTERM, noted instead of acted upon while a step is under way.

    Attributes:
        pending: the signal that came, None until then.
    """

    def __init__(self) -> None:
        self.pending: int | None = None

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
    interruption = Interruption()
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, interruption)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shield(loader: DataLoader[Any]) -> None:
    """Leave SIGINT and SIGTERM to this process: those of `loader`, which may get them too, live on."""
    loader.worker_init_fn = _outlive_signals


def _outlive_signals(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(_GRACE_S))


def shut_down(batches: Iterator[Any]) -> None:
    """End the loader's processes behind `batches` now: an exception held somewhere would let them live on."""
    if end := getattr(batches, "_shutdown_workers", None):
        end()
