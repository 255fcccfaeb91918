"""One progress bar for all verbs; plain lines when the output is not a terminal, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

Report = Callable[..., None]
Progress = Callable[[int, int, str], None]
"""`report(done, total, name)`, called after each case."""
ProgressFactory = Callable[[str], AbstractContextManager[Report]]


@contextmanager
def no_progress(title: str) -> Iterator[Report]:
    """Report nothing."""
    yield lambda done, total, name="", *rest: None


_form = {"json": False}


def use_json() -> None:
    """From now on, `show_progress` writes JSON lines, see `docs/how-to/report.md`."""
    _form["json"] = True


@contextmanager
def show_progress(title: str) -> Iterator[Report]:
    """A Rich bar on a terminal, else a line at each tenth; `report(done, total, name, values)` moves it."""
    if _form["json"]:
        yield _json_report(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_report(title)
        return
    title_column, name_column = TextColumn("{task.description}"), TextColumn("{task.fields[name]}")
    columns = (title_column, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), name_column)
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, name="")

        def report(done: int, total: int, name: str = "", *rest: object) -> None:
            bar.update(task, completed=done, total=total, name=name)

        yield report


def _line_report(title: str) -> Report:
    """Print a line at each tenth, with the time left at the speed since the line before."""
    last: tuple[int, float] | None = None
    tenth = -1

    def report(done: int, total: int, name: str = "", *rest: object) -> None:
        nonlocal last, tenth
        first, now = last is None, time.perf_counter()
        before, at = last = last or (done, now)
        if 10 * done // max(total, 1) <= tenth:
            return
        tenth = 10 * done // max(total, 1)
        parts = [f"{title}: {done}/{total}", name]
        if before < done < total:
            parts.append(f"{_clock((now - at) / (done - before) * (total - done))} left")
            last = (done, now)
        if not first or done:
            print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    return report


def _json_report(title: str) -> Report:
    """Write an object a line to stderr: at most one a second, and whenever the values are new."""
    began: tuple[int, float] | None = None
    last: tuple[float, Any] = (0.0, None)

    def report(done: int, total: int, name: str = "", *rest: Any) -> None:
        nonlocal began, last
        now, values = time.perf_counter(), rest[0] if rest else None
        began = began or (done, now)
        if done < total and now - last[0] < 1 and values == last[1]:
            return
        last = (now, values)
        line: dict[str, Any] = {"step": title, "done": done, "total": total}
        if done > began[0]:
            line["seconds_left"] = round((now - began[1]) / (done - began[0]) * (total - done), 1)
        if values is not None:
            line["values"] = {key: None if value != value else value for key, value in values.items()}
        elif name:
            line["name"] = name
        print(json.dumps(line), file=sys.stderr, flush=True)

    return report


def _clock(seconds: float) -> str:
    """Write 0:09, 12:30 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
