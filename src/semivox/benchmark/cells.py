"""The cells of a grid made ready to run: settings, workspace, cases and run folder of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semivox.benchmark.compare import Role, read_cell, run_cell, scored_cases
from semivox.benchmark.grid import Grid, Place, cells_of, settings_of
from semivox.benchmark.scores import Scored, Setting
from semivox.config import Config
from semivox.datasets.dataset import Case
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.files import read_json
from semivox.methods.cost import method_cost
from semivox.nets import NetFactory
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.ready import prepare
from semivox.preprocessing.workspace import Workspace, is_workspace
from semivox.progress import ProgressFactory, no_progress


@dataclass(frozen=True)
class Job:
    """One cell, ready to run; can be sent to another process."""

    place: Place
    config: Config
    workspace: Workspace
    split: Split
    plan: Plan
    role: Role
    cases: tuple[Case, ...]
    run: Path
    macs: float  # to predict one patch; NaN if they cannot be counted

    @property
    def setting(self) -> Setting:
        """Its row in the tables."""
        return Setting(self.place.preset or "default", len(self.split.labeled), self.place.variant.label)

    @property
    def kind(self) -> str:
        """What decides how long a training step takes."""
        return f"{self.place.preset or 'default'}, {self.place.variant.label}"

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and scored."""
        return read_cell(self.run, self.role, self.config) is not None

    @property
    def is_begun(self) -> bool:
        """Whether there is something to resume."""
        return (self.run / "config.yaml").exists()

    def execute(self, *, bar: bool = False, progress: ProgressFactory = no_progress) -> None:
        """Train, predict and score what is missing."""
        folder = self.workspace.folder
        run_cell(folder, self.config, self.run, self.role, self.cases, bar=bar, progress=progress)

    def scored(self) -> Scored:
        """The scores of a finished job."""
        cell = read_cell(self.run, self.role, self.config)
        assert cell is not None, self.run
        report = read_json(self.run / "run_report.json")["train"]
        facts: dict[str, Any] = {
            "iterations": report["iterations"],
            "checkpoint": report["checkpoint"],
            "seconds_training": cell.seconds_training,
            "seconds_predicting": cell.seconds_predicting,
            "parameters": report["parameters"],
            "macs": self.macs,
        }
        return Scored(self.setting, self.place.seed, cell.table(), facts)


def make_jobs(
    data: Path | str,
    grid: Grid,
    *,
    out: Path,
    work: Path | None = None,
    progress: ProgressFactory = no_progress,
) -> list[Job]:
    """Prepare the data of every preset and number of labels, check every method, in the order of priority.

    One plan serves all numbers of labels of a preset; it is made with the smallest, so that it has seen no
    label that another run hides.

    Args:
        data: a raw folder or a workspace.
        grid: what to run.
        out: folder for run folders and, for raw data, a workspace a preset.
        work: folder for these workspaces instead.
        progress: shows the progress of the preparation.

    Raises:
        UserError: unusable data, settings, method or option, before anything is trained.
    """
    ready: dict[tuple[str | None, Any], tuple[Workspace, Split, Plan, tuple[Case, ...]]] = {}
    first: dict[tuple[str | None, Any], Place] = {}
    for place in cells_of(grid):
        first.setdefault((place.preset, place.labels), place)
    raw = not is_workspace(Path(data))
    for key in sorted(first, key=lambda key: _rank(key[1])):
        config = settings_of(grid, first[key])
        folder = (work or out / "work") / (key[0] or "default") if raw else None
        workers = 2 if config.train.workers else 0
        workspace, split, plan = prepare(data, config=config, work=folder, workers=workers, progress=progress)
        ready[key] = workspace, split, plan, tuple(scored_cases(workspace, split, grid.cases))
    _check_counts({key: len(split.labeled) for key, (_, split, _, _) in ready.items()})
    costs: dict[str, float] = {}
    jobs = []
    for place in cells_of(grid):
        workspace, split, plan, cases = ready[place.preset, place.labels]
        config = settings_of(grid, place)
        kind = f"{place.preset} {place.variant.label}"
        if kind not in costs:
            costs[kind] = _macs(config, plan)
        run = out / place.folder
        jobs.append(Job(place, config, workspace, split, plan, grid.cases, cases, run, costs[kind]))
    return jobs


def _check_counts(counts: dict[tuple[str | None, Any], int]) -> None:
    """Two entries of `labels` must not mean the same number: their runs would be taken for seeds of one."""
    seen: dict[tuple[str | None, int], Any] = {}
    for (preset, labels), count in counts.items():
        if (preset, count) in seen:
            raise UserError(
                "Two numbers of labels of the grid are the same",
                found=f"{seen[preset, count]} and {labels} both give {count} labeled cases",
                expected="different numbers",
                do="leave one of them out",
            )
        seen[preset, count] = labels


def _rank(labels: float | None) -> tuple[bool, bool, float]:
    """Fractions first, then numbers, then all labels."""
    return (labels is None, isinstance(labels, int), labels or 0)


def _macs(config: Config, plan: Plan) -> float:
    """Check the method's options, and count."""
    net = NetFactory(len(plan.channels), len(plan.class_names), **config.net.model_dump())
    try:
        return method_cost(config.method.name, config.method.options, net, plan.patch).predicting.macs
    except (NotImplementedError, RuntimeError):  # a method that needs values, which meta tensors lack
        return float("nan")
