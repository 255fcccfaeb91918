"""One progress bar for all verbs; plain lines when the output is not a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Report = Callable[..., None]
Progress = Callable[[int, int, str], None]
"""`report(done, total, name)`, called after each case."""
ProgressFactory = Callable[[str], AbstractContextManager[Report]]


@contextmanager
def no_progress(title: str) -> Iterator[Report]:
    """Report nothing."""
    yield lambda done, total, name="", *rest: None


@contextmanager
def show_progress(title: str) -> Iterator[Report]:
    """A Rich bar on a terminal, else a line at each tenth; `report(done, total, name)` moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_report(title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, name="")

        def report(done: int, total: int, name: str = "", *rest: object) -> None:
            bar.update(task, completed=done, total=total, name=name)

        yield report


def _line_report(title: str) -> Report:
    """Print a line at each tenth, with the time left at the speed since the line before."""
    import sys
    import time

    began: tuple[int, float] | None = None
    tenth = -1

    def report(done: int, total: int, name: str = "", *rest: object) -> None:
        nonlocal began, tenth
        first, began = began is None, began or (done, time.perf_counter())
        if (now := 10 * done // max(total, 1)) <= tenth:
            return
        tenth = now
        parts = [f"{title}: {done}/{total}", name]
        if began[0] < done < total:
            seconds = (time.perf_counter() - began[1]) / (done - began[0]) * (total - done)
            parts.append(f"{_clock(seconds)} left")
            began = (done, time.perf_counter())
        if not first or done:
            print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    return report


def _clock(seconds: float) -> str:
    """Write 0:09, 12:30 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
