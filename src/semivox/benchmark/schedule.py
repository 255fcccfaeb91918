"""The cells of a grid made ready to run, and how long they will take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from semivox.benchmark.cells import Cell, scored_cases
from semivox.benchmark.grid import Grid, Place, cells_of, settings_of
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
from semivox.reporting.planes import draw_case
from semivox.training.estimate import case_seconds, run_seconds
from semivox.training.runs import batch_sizes, net_sizes, step_seconds

_Ready = tuple[Workspace, Split, Plan, tuple[Case, ...]]


def make_cells(
    data: Path, grid: Grid, *, out: Path, work: Path | None = None, progress: ProgressFactory = no_progress
) -> list[Cell]:
    """Prepare the data of every preset and number of labels, check every method, in the order of priority.

    One plan serves all numbers of labels of a preset; it is made with the smallest, so that it has seen no
    label that another run hides. Rows that mean the same settings share a run. `out` holds the run folders
    and, for raw data without `work`, a workspace a preset. Whatever cannot be used is a `UserError`.
    """
    raw, ready = not is_index(data), dict[tuple[str | None, Any], _Ready]()
    for place in sorted(cells_of(grid), key=_by_labels):
        if (place.preset, place.labels) in ready:
            continue
        config = settings_of(grid, place)
        folder = (work or out / "work") / (place.preset or "default") if raw else None
        workers = 2 if config.train.workers else 0
        workspace, split, plan = prepare_data(
            data, config=config, work=folder, workers=workers, on_case=draw_case, progress=progress
        )
        count = len(split.labeled)
        for (preset, labels), (_, other, *_) in ready.items():
            if preset == place.preset and len(other.labeled) == count:  # would be taken for seeds of one run
                what = "Two numbers of labels of the grid are the same"
                found = f"{labels} and {place.labels} both mean {count} labeled cases"
                raise UserError(what, found, "different numbers", "leave one of them out")
        ready[place.preset, place.labels] = workspace, split, plan, scored_cases(workspace, split, grid.cases)
    costs, runs, cells = dict[str, Cost | None](), dict[str, str](), []
    for place in cells_of(grid):
        workspace, split, plan, cases = ready[place.preset, place.labels]
        config = settings_of(grid, place)
        if place.kind not in costs:
            costs[place.kind] = _cost(config, plan)
        run = out / runs.setdefault(_meaning(config, workspace), place.folder)
        cost = costs[place.kind]
        cells.append(Cell(place, workspace, split, plan, config, run, grid.cases, cases, cost))
    return cells


class Estimator:
    """Estimates in seconds; probes are made once for each preset and method, and kept in a file."""

    def __init__(self, cells: Sequence[Cell], file: Path) -> None:
        self._cells, self._file = cells, file
        self._steps: dict[str, float] = read_json(file) if file.exists() else {}

    def seconds(self, cell: Cell) -> float:
        """Estimate a cell from its beginning: as finished ones took that differ in labels and seed.

        Without one: training, validation and prediction from a probe; scoring and start-up are not in it.
        """
        parts, kind = ("seconds_training", "seconds_predicting", "seconds_scoring"), cell.place.kind
        finished = (other.facts() for other in self._cells if other.place.kind == kind and other.is_finished)
        if alike := [sum(facts[part] for part in parts) for facts in finished]:
            return float(mean(alike))
        net, method = NetFactory(**net_sizes(cell.plan, cell.config)), cell.config.method
        built, step_s = without_memory(method.name, method.options, net), self.step(cell)
        case_s = case_seconds(cell.config, cell.plan, built, step_s, sum(batch_sizes(cell.config)))
        return run_seconds(cell.config, case_s, step_s, val=len(cell.split.val), test=len(cell.cases))

    def step(self, cell: Cell) -> float:
        """Measure the seconds of one training step."""
        kind = cell.place.kind
        if kind not in self._steps:
            self._steps[kind] = step_seconds(cell.workspace, cell.split, cell.plan, cell.config)
            write_json(self._file, self._steps)
        return self._steps[kind]


def _by_labels(place: Place) -> tuple[bool, bool, float]:
    """Fractions first, then numbers, then all labels."""
    number = place.labels if isinstance(place.labels, int | float) else 0
    return (not number, isinstance(place.labels, int), number)


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
