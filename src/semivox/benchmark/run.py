"""`benchmark`: a grid of runs, cell by cell, and the tables and pictures made of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semivox.benchmark.cells import Job, make_jobs
from semivox.benchmark.estimate import Estimator
from semivox.benchmark.grid import Comparison, Grid
from semivox.benchmark.isolate import Failure, Worker, attempt
from semivox.benchmark.tables import Declaration, Tables, write_tables
from semivox.files import read_json, write_json, write_text
from semivox.manifest import write_manifest
from semivox.progress import ProgressFactory, no_progress
from semivox.run import environment

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What became of a grid.

    Attributes:
        tables: of the finished cells; None if there are none.
        failed: message of each cell that failed.
        left: cells that did not fit into the time.
    """

    tables: Tables | None = None
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Forecast:
    """A cell before the run: finished, begun, open or fails, and its estimated seconds (0 if unknown)."""

    job: Job
    state: str
    seconds: float


def forecast(
    data: Path | str,
    grid: Grid,
    *,
    out: Path | str,
    work: Path | None = None,
    progress: ProgressFactory = no_progress,
) -> list[Forecast]:
    """Prepare the data and estimate every cell, in the order of priority; nothing is trained.

    Arguments as for `benchmark`.
    """
    jobs = make_jobs(data, grid, out=Path(out), work=work, progress=progress)
    estimator = Estimator(jobs, Path(out) / "steps.json")
    found = []
    with progress("estimate") as report:
        for index, job in enumerate(jobs, start=1):
            found.append(_forecast(job, estimator))
            report(index, len(jobs), job.place.name)
    return found


def _forecast(job: Job, estimator: Estimator) -> Forecast:
    if job.is_finished:
        return Forecast(job, "finished", 0.0)
    failure = attempt(estimator.seconds, job)
    if failure is not None:
        return Forecast(job, f"fails: {failure.message}", 0.0)
    return Forecast(job, "begun" if job.is_begun else "open", estimator.seconds(job))


def benchmark(
    data: Path | str,
    grid: Grid,
    *,
    out: Path | str,
    work: Path | None = None,
    max_hours: float | None = None,
    published: str | None = None,
    ablation: str | None = None,
    isolate: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
    say: Say = lambda _: None,
) -> Outcome:
    """Train, predict and score every cell of a grid, then write the tables; a repeated call goes on.

    A cell that fails is reported and the next one begins; a repeated call tries it again.

    Args:
        data: a raw folder or a workspace.
        grid: what to run; see `semivox.benchmark.grid.load_grid`.
        out: folder for `runs/`, `table.md`, `table.tex`, CSV files and pictures.
        work: folder for a workspace a preset, for raw data; default `out/work`.
        max_hours: begin no cell that is estimated to end later; the order is that of `grid.priority`.
            0 only makes the tables of what is finished.
        published: la, pancreas or brats: show that paper's figures beside these.
        ablation: name of the shipped ablation that the grid is; chooses the published table.
        isolate: run cells in a process of their own, so that one that is killed does not end the benchmark.
        bar: show training progress bars.
        progress: shows the progress of everything else.
        say: gets a line before and after each cell.
    """
    out = Path(out)
    started = time.monotonic()
    jobs = make_jobs(data, grid, out=out, work=work, progress=progress)
    declaration = _declare(grid.compare, jobs, out / "declared.json")
    outcome = Outcome()
    estimator = Estimator(jobs, out / "steps.json")
    worker = Worker(isolate=isolate)
    try:
        for index, job in enumerate(jobs):
            if job.is_finished:
                continue
            failure = None
            if max_hours is not None:
                left = max_hours * 3600 - (time.monotonic() - started)
                failure = attempt(estimator.seconds, job) if left > 0 else None
                if left <= 0 or (failure is None and estimator.seconds(job) > left):
                    outcome.left = [other.place.name for other in jobs[index:] if not other.is_finished]
                    break
            say(f"[{index + 1}/{len(jobs)}] {job.place.name}")
            if failure is None:
                failure = worker.call(job.execute, bar=bar, progress=progress)
            _note(job, failure)
            if failure is not None:
                outcome.failed[job.place.name] = failure.message
                say(f"failed: {failure.message}")
    finally:
        worker.close()
    scored = [job.scored() for job in jobs if job.is_finished]
    if scored:
        outcome.tables = write_tables(
            scored,
            out,
            reference=grid.reference or (grid.compare.reference if grid.compare else grid.methods[0].label),
            declaration=declaration,
            missing={**outcome.failed, **dict.fromkeys(outcome.left, "left for lack of time")},
            cases=grid.cases,
            dataset=jobs[0].workspace.dataset.name,
            published=published,
            ablation=ablation,
        )
    facts: dict[str, Any] = {"failed": outcome.failed, "left": outcome.left}
    write_json(
        out / "benchmark.json",
        {"grid": grid.model_dump(mode="json"), **facts, "environment": environment()},
    )
    write_manifest(out, "benchmark", cells=len(jobs), finished=len(scored), **facts)
    return outcome


def _note(job: Job, failure: Failure | None) -> None:
    """Keep the details of a failure in the run folder, and forget those of an earlier one."""
    file = job.run / "failure.txt"
    if failure is not None:
        write_text(file, failure.details + "\n")
    else:
        file.unlink(missing_ok=True)


def _declare(compare: Comparison | None, jobs: Sequence[Job], file: Path) -> Declaration | None:
    """Record the declared comparison, and how many cells were finished when it was declared."""
    if compare is None:
        return None
    asked = compare.model_dump(mode="json")
    known = read_json(file) if file.exists() else {}
    if known.get("compare") != asked:
        known = {"compare": asked, "finished_before": sum(job.is_finished for job in jobs)}
        write_json(file, known)
    (setting,) = {
        job.setting
        for job in jobs
        if (job.place.preset, job.place.labels, job.place.variant.label)
        == (compare.preset, compare.labels, compare.method)
    }
    return Declaration(
        setting.preset,
        setting.labeled,
        compare.method,
        compare.reference,
        compare.metric,
        int(known["finished_before"]),
    )
