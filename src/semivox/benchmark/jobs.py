"""The cells of a grid made ready to run, and how long they will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from semivox.benchmark.cells import Cell, scored_cases
from semivox.benchmark.grid import Grid, Place, cells_of, settings_of
from semivox.benchmark.scores import Scored, Setting
from semivox.config import Config
from semivox.datasets.dataset import Case, is_index
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.methods import check_method
from semivox.methods.cost import Cost, method_cost, without_memory
from semivox.nets import NetFactory
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.workspace import Workspace, prepare_data
from semivox.progress import ProgressFactory, no_progress
from semivox.reporting.drawing import draw_case
from semivox.training.estimate import run_seconds
from semivox.training.runs import batch_sizes, net_sizes, step_seconds

_Ready = tuple[Workspace, Split, Plan, tuple[Case, ...]]


@dataclass(frozen=True)
class Job(Cell):
    """A cell of a grid."""

    place: Place
    cost: Cost | None  # size and MACs for one patch; None if they cannot be counted

    @property
    def setting(self) -> Setting:
        """Its row in the tables."""
        return Setting(self.place.preset or "default", len(self.split.labeled), self.place.variant.label)

    @property
    def kind(self) -> str:
        """What decides how long a training step takes."""
        return f"{self.place.preset or 'default'}, {self.place.variant.label}"

    def scored(self) -> list[Scored]:
        """Read the scores of a finished job: of its prediction, then of each network alone."""
        found = [Scored(self.setting, self.place.seed, self.table(), {**self.facts(), **sizes(self.cost)})]
        for member, table in self.member_tables().items():
            found.append(Scored(self.setting._replace(network=member), self.place.seed, table))
        return found


def make_jobs(
    data: Path, grid: Grid, *, out: Path, work: Path | None = None, progress: ProgressFactory = no_progress
) -> list[Job]:
    """Prepare the data of every preset and number of labels, check every method, in the order of priority.

    One plan serves all numbers of labels of a preset; it is made with the smallest, so that it has seen no
    label that another run hides. Rows that mean the same settings share a run. `out` holds the run folders
    and, for raw data without `work`, a workspace a preset. Whatever cannot be used is a `UserError`.
    """
    first: dict[tuple[str | None, Any], Place] = {}
    for place in cells_of(grid):
        first.setdefault((place.preset, place.labels), place)
    raw, ready = not is_index(data), dict[tuple[str | None, Any], _Ready]()
    for key in sorted(first, key=lambda key: _rank(key[1])):
        config = settings_of(grid, first[key])
        folder = (work or out / "work") / (key[0] or "default") if raw else None
        workers = 2 if config.train.workers else 0
        workspace, split, plan = prepare_data(
            data, config=config, work=folder, workers=workers, on_case=draw_case, progress=progress
        )
        ready[key] = workspace, split, plan, scored_cases(workspace, split, grid.cases)
    _check_counts({key: len(split.labeled) for key, (_, split, _, _) in ready.items()})
    costs, runs, jobs = dict[str, Cost | None](), dict[str, str](), []
    for place in cells_of(grid):
        workspace, split, plan, cases = ready[place.preset, place.labels]
        config = settings_of(grid, place)
        kind = f"{place.preset} {place.variant.label}"
        if kind not in costs:
            costs[kind] = _cost(config, plan)
        run = out / runs.setdefault(_meaning(config, workspace), place.folder)
        jobs.append(Job(workspace, split, plan, config, run, grid.cases, cases, place, costs[kind]))
    return jobs


def sizes(cost: Cost | None) -> dict[str, float]:
    """Return MACs and parameters in the conventions of the literature, as columns of the table of runs."""
    if cost is None:
        return {}
    macs = {"macs": cost.predicting.macs, "macs_step": cost.step.macs, "macs_printed": cost.step.printed_macs}
    return {**macs, "parameters_predicting": cost.predicting.parameters}


class Estimator:
    """Estimates in seconds; probes are made once for each preset and method, and kept in a file."""

    def __init__(self, jobs: Sequence[Job], file: Path) -> None:
        self._jobs, self._file = jobs, file
        self._steps: dict[str, float] = read_json(file) if file.exists() else {}

    def seconds(self, job: Job) -> float:
        """Estimate a cell from its beginning: as finished ones took that differ in labels and seed.

        Without one: training, validation and prediction from a probe; scoring and start-up are not in it.
        """
        alike = [other.facts() for other in self._jobs if other.kind == job.kind and other.is_finished]
        if alike:
            parts = ("seconds_training", "seconds_predicting", "seconds_scoring")
            return float(mean(sum(facts[part] for part in parts) for facts in alike))
        sizes = {"batch": sum(batch_sizes(job.config)), "val": len(job.split.val), "test": len(job.cases)}
        net, method = NetFactory(**net_sizes(job.plan, job.config)), job.config.method
        built = without_memory(method.name, method.options, net)
        return run_seconds(job.config, job.plan, built, self.step(job), **sizes)

    def step(self, job: Job) -> float:
        """Measure the seconds of one training step."""
        if job.kind not in self._steps:
            self._steps[job.kind] = step_seconds(job.workspace, job.split, job.plan, job.config)
            write_json(self._file, self._steps)
        return self._steps[job.kind]


def _check_counts(counts: dict[tuple[str | None, Any], int]) -> None:
    """Two entries of `labels` must not mean the same number: their runs would be taken for seeds of one."""
    seen: dict[tuple[str | None, int], Any] = {}
    for (preset, labels), count in counts.items():
        if (preset, count) in seen:
            found = f"{seen[preset, count]} and {labels} both mean {count} labeled cases"
            what = "Two numbers of labels of the grid are the same"
            raise UserError(what, found, "different numbers", "leave one of them out")
        seen[preset, count] = labels


def _rank(labels: float | str | None) -> tuple[bool, bool, float]:
    """Fractions first, then numbers, then all labels."""
    number = labels if isinstance(labels, int | float) else 0
    return (not number, isinstance(labels, int), number)


def _cost(config: Config, plan: Plan) -> Cost | None:
    """Check the method's options, and count its parameters and what a patch costs."""
    net = NetFactory(**net_sizes(plan, config))
    try:
        return method_cost(config.method.name, config.method.options, net, plan.patch)
    except (NotImplementedError, RuntimeError):  # a method that needs values, which meta tensors lack
        return None


def _meaning(config: Config, workspace: Workspace) -> str:
    """Return the same text for settings that mean the same, with defaults written out or left out."""
    options = check_method(config.method.name, config.method.options).model_dump()
    method = config.method.model_copy(update={"options": options})
    return f"{workspace.folder} {config.model_copy(update={'method': method})!r}"
