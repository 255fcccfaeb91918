"""What the user sees while training: a live bar in a terminal, one line every tenth elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_REFRESH_S = 0.25
_RECENT = 20  # readings of the losses over which the speed is measured: a warm-up is quicker than the rest


class Display:
    """Shows iteration, losses, speed and time left; a context manager that leaves the terminal in order.

    Args:
        total: iterations of the run.
        start: iterations done before.
        enabled: False shows nothing.
        console: where to write; default: standard error.
    """

    def __init__(
        self, total: int, start: int, *, enabled: bool = True, console: Console | None = None
    ) -> None:
        self._total, self._start, self._enabled = total, start, enabled
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._shown = time.perf_counter()
        self._losses, self._tenth = "", start * 10 // total
        self._bar: Progress | None = None
        self._marks: deque[tuple[int, float]] = deque(maxlen=_RECENT)

    def __enter__(self) -> Self:
        if self._enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                console=self._console,
                auto_refresh=False,
            )
            self._bar.add_task("training", total=self._total, completed=self._start, text="")
            self._bar.start()
        self._marks.append((self._start, time.perf_counter()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        if self._enabled:
            self._console.print(text, markup=False)

    def losses(self, done: int, losses: Mapping[str, float]) -> None:
        """Take over the losses read at iteration `done`; away from a terminal this prints at every tenth."""
        self._losses = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        tenth = done * 10 // self._total
        if self._bar is None and tenth > self._tenth:
            self._tenth = tenth
            self.say(f"iteration {done}/{self._total}  {self._text(done)}")
        self._marks.append((done, time.perf_counter()))

    def advance(self, done: int) -> None:
        """Move the bar, at most four times a second."""
        now = time.perf_counter()
        if self._bar is not None and (now - self._shown > _REFRESH_S or done == self._total):
            self._shown = now
            self._bar.update(self._bar.task_ids[0], completed=done, text=self._text(done), refresh=True)

    def _text(self, done: int) -> str:
        since, began = self._marks[0]
        speed = (done - since) / max(time.perf_counter() - began, 1e-9)
        left = round((self._total - done) / speed) if speed else 0
        hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
        clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return f"{self._losses}  {speed:.2f} it/s  {clock} left"
