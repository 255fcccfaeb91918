"""`benchmark`: a grid of runs, cell by cell, and the tables and pictures made of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from semivox.benchmark.cells import Cell
from semivox.benchmark.grid import Comparison, Grid
from semivox.benchmark.schedule import Estimator, make_cells
from semivox.benchmark.scores import Pair
from semivox.benchmark.tables import Tables, write_tables
from semivox.errors import UserError
from semivox.files import read_json, write_json, write_text
from semivox.io.process import DiedError, Process
from semivox.manifest import Manifest
from semivox.progress import ProgressFactory, Report, no_progress
from semivox.run import Run, environment


@dataclass
class Outcome:
    """What became of a grid."""

    cells: list[Cell]  # all cells
    tables: Tables | None = None  # of the finished cells; None if there are none
    failed: dict[str, str] = field(default_factory=dict)  # message of each cell that failed
    left: list[str] = field(default_factory=list)  # cells that did not fit into the time
    forecast: list[Forecast] = field(default_factory=list)  # of all cells, if only that was asked for


class Forecast(NamedTuple):
    """A cell before the run: finished, begun, open or fails, and its estimated seconds (0 if unknown)."""

    cell: Cell
    state: str
    seconds: float


@dataclass(frozen=True)
class How:
    """Where and how a grid is run, see `semivox.benchmark`."""

    out: Path
    work: Path | None = None
    dry_run: bool = False
    max_hours: float | None = None
    isolate: bool = False
    bar: bool = False
    progress: ProgressFactory = no_progress
    say: Callable[[str], None] = lambda _: None


def benchmark(
    data: Path, grid: Grid, how: How, *, published: str | None = None, ablation: str | None = None
) -> Outcome:
    """Train, predict and score every cell of a grid, then write the tables; see `semivox.benchmark`."""
    out, progress = how.out, how.progress
    cells = make_cells(data, grid, out=out, work=how.work, progress=progress)
    _check_runs(cells)
    outcome, estimator, started = Outcome(cells), Estimator(cells, out / "steps.json"), time.monotonic()
    if how.dry_run:
        with progress("estimate") as report:
            outcome.forecast = _forecasts(cells, estimator, report)
        return outcome
    declared = _declare(grid.compare, cells, out / "declaration.json")
    for index, cell in enumerate(cells):
        if cell.is_finished:
            continue
        failure = None
        if how.max_hours is not None:
            left = how.max_hours * 3600 - (time.monotonic() - started)
            needed = attempt(estimator.seconds, cell) if left > 0 else 0.0
            if isinstance(needed, Failure):
                failure = needed
            elif needed >= left:
                outcome.left = [other.place.name for other in cells[index:] if not other.is_finished]
                break
        how.say(f"[{index + 1}/{len(cells)}] {cell.place.name}")
        failure = failure or (isolated if how.isolate else attempt)(
            cell.execute, bar=how.bar, progress=progress
        )
        if failure is None:
            (cell.run / "failure.txt").unlink(missing_ok=True)
        else:
            write_text(cell.run / "failure.txt", failure.details + "\n")
            outcome.failed[cell.place.name] = failure.message
            how.say(f"failed: {failure.message}")
    finished = [cell for cell in cells if cell.is_finished]
    if finished:
        outcome.tables = write_tables(
            finished, out, declared=declared, grid=grid, published=published, ablation=ablation,
            missing={**outcome.failed, **dict.fromkeys(outcome.left, "left for lack of time")},
        )  # fmt: skip
    facts = {"failed": outcome.failed, "left": outcome.left}
    content = {"grid": grid.model_dump(mode="json"), **facts, "environment": environment()}
    write_json(out / "benchmark.json", content)
    Manifest(out).report("benchmark", cells=len(cells), finished=len(finished), **facts)
    return outcome


class Failure(NamedTuple):
    """Why a call failed: one line for the report, and everything."""

    message: str
    details: str


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a call returns, or a `Failure`; an interruption by the user is raised."""
    try:
        return function(*args, **kwargs)
    except UserError as error:
        return Failure(error.what, str(error))
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}".splitlines()[0], traceback.format_exc())


def isolated(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Do the same in a process of its own: where that dies, the others go on."""
    process = Process("semivox.errors")  # a light one, since all processes that start later have it, too
    try:
        process.send(attempt, function, *args, **kwargs)
        return process.receive()
    except DiedError as error:
        return Failure(f"The process died: {error}", str(error))
    finally:
        process.close()


def _check_runs(cells: Sequence[Cell]) -> None:
    """Refuse runs with other settings or data than their cells have now: the tables would mix both."""
    for cell in {cell.run: cell for cell in cells}.values():
        if Run(cell.run).is_begun:
            try:
                cell.check()
            except UserError as error:
                do = f"choose another -o folder, or delete {cell.run} to train it again"
                raise UserError(error.what, error.found, error.expected, do, cell.run) from error


def _forecasts(cells: Sequence[Cell], estimator: Estimator, report: Report) -> list[Forecast]:
    found, of_run = list[Forecast](), dict[Path, Cell]()
    for index, cell in enumerate(cells, start=1):
        first = of_run.setdefault(cell.run, cell)
        if first is not cell:
            found.append(Forecast(cell, f"the run of {first.place.variant.label}", 0.0))
        elif cell.is_finished:
            found.append(Forecast(cell, "finished", 0.0))
        elif isinstance(needed := attempt(estimator.seconds, cell), Failure):
            found.append(Forecast(cell, f"fails: {needed.message}", 0.0))
        else:
            state = "begun" if (cell.run / "config.yaml").exists() else "open"
            found.append(Forecast(cell, state, needed))
        report(index, len(cells), cell.place.name)
    return found


def _declare(compare: Comparison | None, cells: Sequence[Cell], file: Path) -> tuple[Pair, int] | None:
    """Record the declared comparison, and how many cells were finished when it was declared."""
    if compare is None:
        return None
    asked = compare.model_dump(mode="json")
    known = read_json(file) if file.exists() else {}
    if known.get("compare") != asked:
        known = {"compare": asked, "finished_before": sum(cell.is_finished for cell in cells)}
        write_json(file, known)
    places = {(cell.place.preset, cell.place.labels): len(cell.split.labeled) for cell in cells}
    labeled = places[compare.preset, compare.labels]
    pair = Pair(compare.preset or "default", labeled, compare.method, compare.reference, compare.metric)
    return pair, int(known["finished_before"])
