"""`benchmark`: a grid of runs, cell by cell, and the tables and pictures made of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semivox.benchmark.grid import Comparison, Grid
from semivox.benchmark.isolate import Failure, Worker, attempt
from semivox.benchmark.jobs import Estimator, Job, make_jobs
from semivox.benchmark.scores import Declared
from semivox.benchmark.tables import Tables, write_tables
from semivox.files import read_json, write_json, write_text
from semivox.manifest import write_manifest
from semivox.progress import ProgressFactory, Report, no_progress
from semivox.run import environment

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What became of a grid."""

    jobs: list[Job]  # all cells
    tables: Tables | None = None  # of the finished cells; None if there are none
    failed: dict[str, str] = field(default_factory=dict)  # message of each cell that failed
    left: list[str] = field(default_factory=list)  # cells that did not fit into the time
    forecast: list[Forecast] = field(default_factory=list)  # of all cells, if only that was asked for


@dataclass(frozen=True)
class Forecast:
    """A cell before the run: finished, begun, open or fails, and its estimated seconds (0 if unknown)."""

    job: Job
    state: str
    seconds: float


def benchmark(
    data: Path,
    grid: Grid,
    *,
    out: Path,
    work: Path | None = None,
    dry_run: bool = False,
    max_hours: float | None = None,
    published: str | None = None,
    ablation: str | None = None,
    isolate: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
    say: Say = lambda _: None,
) -> Outcome:
    """Train, predict and score every cell of a grid, then write the tables; see `semivox.benchmark`."""
    outcome = Outcome(make_jobs(data, grid, out=out, work=work, progress=progress))
    jobs, estimator = outcome.jobs, Estimator(outcome.jobs, out / "steps.json")
    if dry_run:
        with progress("estimate") as report:
            outcome.forecast = _forecasts(jobs, estimator, report)
        return outcome
    declared = _declare(grid.compare, jobs, out / "declaration.json")
    worker = Worker(isolate=isolate)
    end = math.inf if max_hours is None else time.monotonic() + max_hours * 3600
    try:
        for index, job in enumerate(jobs):
            if job.is_finished:
                continue
            left = end - time.monotonic()
            failure = attempt(estimator.seconds, job) if 0 < left < math.inf else None
            if left <= 0 or (left < math.inf and failure is None and estimator.seconds(job) > left):
                outcome.left = [other.place.name for other in jobs[index:] if not other.is_finished]
                break
            say(f"[{index + 1}/{len(jobs)}] {job.place.name}")
            failure = failure or worker.call(job.execute, bar=bar, progress=progress)
            _note(job, failure)
            if failure is not None:
                outcome.failed[job.place.name] = failure.message
                say(f"failed: {failure.message}")
    finally:
        worker.close()
    finished = [job for job in jobs if job.is_finished]
    if finished:
        outcome.tables = write_tables(
            [scored for job in finished for scored in job.scored()], out, declared=declared, cases=grid.cases,
            reference=grid.reference or (grid.compare.reference if grid.compare else grid.methods[0].label),
            missing={**outcome.failed, **dict.fromkeys(outcome.left, "left for lack of time")},
            dataset=jobs[0].workspace.dataset.name, published=published, ablation=ablation,
        )  # fmt: skip
    facts = {"failed": outcome.failed, "left": outcome.left}
    content = {"grid": grid.model_dump(mode="json"), **facts, "environment": environment()}
    write_json(out / "benchmark.json", content)
    write_manifest(out, "benchmark", cells=len(jobs), finished=len(finished), **facts)
    return outcome


def _forecasts(jobs: Sequence[Job], estimator: Estimator, report: Report) -> list[Forecast]:
    cells, found = [], dict[Path, Forecast]()
    for index, job in enumerate(jobs, start=1):
        if same := found.get(job.run):
            cells.append(Forecast(job, f"the run of {same.job.place.variant.label}", 0.0))
        else:
            cells.append(found.setdefault(job.run, _forecast(job, estimator)))
        report(index, len(jobs), job.place.name)
    return cells


def _forecast(job: Job, estimator: Estimator) -> Forecast:
    if job.is_finished:
        return Forecast(job, "finished", 0.0)
    if (failure := attempt(estimator.seconds, job)) is not None:
        return Forecast(job, f"fails: {failure.message}", 0.0)
    return Forecast(job, "begun" if job.is_begun else "open", estimator.seconds(job))


def _note(job: Job, failure: Failure | None) -> None:
    """Keep the details of a failure in the run folder, and forget those of an earlier one."""
    file = job.run / "failure.txt"
    if failure is not None:
        write_text(file, failure.details + "\n")
    else:
        file.unlink(missing_ok=True)


def _declare(compare: Comparison | None, jobs: Sequence[Job], file: Path) -> tuple[Declared, int] | None:
    """Record the declared comparison, and how many cells were finished when it was declared."""
    if compare is None:
        return None
    asked = compare.model_dump(mode="json")
    known = read_json(file) if file.exists() else {}
    if known.get("compare") != asked:
        known = {"compare": asked, "finished_before": sum(job.is_finished for job in jobs)}
        write_json(file, known)
    wanted = compare.preset, compare.labels, compare.method
    places = {job.setting: (job.place.preset, job.place.labels, job.place.variant.label) for job in jobs}
    setting = next(setting for setting, place in places.items() if place == wanted)
    pair = compare.method, compare.reference, compare.metric
    return Declared(setting.preset, setting.labeled, *pair), int(known["finished_before"])
