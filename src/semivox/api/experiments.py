"""Which methods there are, and how they compare: grids of runs, the demo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt

from semivox.api.arguments import (
    AnyPath,
    Anything,
    NotNegative,
    Whole,
    checked,
    needed,
    optional,
    raw_folder,
    settings,
    verb,
)
from semivox.progress import ProgressFactory, no_progress
from semivox.settings import Seed

if TYPE_CHECKING:
    from semivox.benchmark.demo import Demo
    from semivox.benchmark.grid import Grid
    from semivox.benchmark.paper.replicate import Replication
    from semivox.benchmark.run import Outcome


@verb
def methods(name: str | None = None) -> dict[str, dict[str, Any]]:
    """Describe every training method, or one: idea, options with their defaults, source, BibTeX."""
    from semivox.methods.catalogue import describe_method, list_methods

    return list_methods() if name is None else {name: describe_method(name)}


@verb
def load_grid(
    *, file: AnyPath | None = None, ablation: str | None = None, changes: Mapping[str, Any] | None = None
) -> Grid:
    """Resolve a grid for `benchmark`: a shipped ablation, then a YAML file, then `changes`.

    Examples:
        >>> [row.label for row in load_grid(changes={"methods": ["supervised", "dual"]}).methods]
        ['supervised', 'dual']
    """
    from semivox.benchmark.grid_file import load_grid as run

    return run(file=optional(file), ablation=ablation, changes=changes)


@verb
def benchmark(
    data: AnyPath,
    grid: Anything,
    *,
    out: AnyPath,
    work: AnyPath | None = None,
    dry_run: bool = False,
    max_hours: NotNegative | None = None,
    published: Literal["la", "pancreas", "brats"] | None = None,
    ablation: str | None = None,
    isolate: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train, predict and score every cell of a grid, then write the tables; a repeated call resumes.

    A cell that fails is reported and the next one begins; a repeated call tries it again. A dry run returns
    its estimates as `forecast`. Runs in `out` with other settings or data are refused.

    Args:
        data: a raw folder or a workspace.
        grid: what to run, from `load_grid`; or a dictionary, or a YAML file.
        out: folder for `runs/`, `table.md`, `table.tex`, CSV files and pictures.
        work: folder for the workspaces, one per preset, if `data` is a raw folder; default `out/work`.
        dry_run: train nothing, and estimate the time of each cell.
        max_hours: start no cell that would end later; 0 makes the tables of what is finished.
        published: show the paper's figures for this data set beside these.
        ablation: name of the shipped ablation that the grid is; chooses the published table.
        isolate: run each cell in a process of its own, so that one that is killed does not end the others.
        bar: show training progress bars.
        say: called with a line before and after each cell.
    """
    folder, cells = raw_folder(data), _grid(grid)
    from semivox.benchmark.run import How
    from semivox.benchmark.run import benchmark as run

    how = How(Path(out), optional(work), dry_run, max_hours, isolate, bar, progress, say)
    return run(folder, cells, how, published=published, ablation=ablation)


@verb
def replicate(
    item: str,
    data: AnyPath | tuple[AnyPath, ...] | list[AnyPath],
    *,
    out: AnyPath,
    changes: Mapping[str, Any] | None = None,
    work: AnyPath | None = None,
    dry_run: bool = False,
    max_hours: NotNegative | None = None,
    isolate: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
    say: Callable[[str], None] = lambda _: None,
) -> Replication:
    """Make a table or figure of arXiv 2509.13084 again, beside the published one; a repeated call resumes.

    Args:
        item: table1 to table7, figure1 or figure5 to figure8.
        data: a raw folder or workspace, or several.
        out: folder for the table or figure (Markdown, LaTeX, CSV; PNG and PDF), and for the runs of each data
            set, which all items share.
        changes: entries of a grid that replace the item's, e.g. `{"presets": ["la-8-lite"], "seeds": 1}`;
            without `presets`, those of the paper for its data sets.
        work, dry_run, max_hours, isolate, bar, say: as for `benchmark`.
    """
    from semivox.benchmark.paper.items import entries_of, find_item
    from semivox.benchmark.paper.replicate import replicate as run
    from semivox.benchmark.run import How

    found = find_item(item)
    folders = [raw_folder(one) for one in (data if isinstance(data, (tuple, list)) else (data,))]
    entries = entries_of(found, folders, changes or {})
    for entry in entries:
        _grid(entry.grid)
    return run(
        found, entries, How(Path(out), optional(work), dry_run, max_hours, isolate, bar, progress, say)
    )


@verb
def demo(
    out: AnyPath = "demo",
    *,
    seed: Seed = 0,
    config: Anything = None,
    train: Whole = 40,
    test: NonNegativeInt = 20,
    fresh: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> Demo:
    """Train with 4 labels of 40 phantoms, with and without the unlabeled ones, and compare on 20 others.

    Args:
        out: folder for phantoms, workspace, runs and the picture.
        seed: of the training; the phantoms are always the same.
        config: other settings than those of the demo.
        train, test: numbers of phantoms.
    """
    from semivox.benchmark.demo import SETTINGS
    from semivox.benchmark.demo import demo as run

    chosen = checked(settings(SETTINGS if config is None else config), training=True)
    return run(
        Path(out), seed=seed, config=chosen, train=train, test=test, fresh=fresh, bar=bar, progress=progress
    )


def _grid(grid: Any) -> Grid:
    """Accept a grid in every form, and check the settings of all its cells before any scan is opened."""
    from semivox.benchmark.grid import Grid, cells_of, settings_of
    from semivox.benchmark.grid_file import load_grid as load

    if not isinstance(grid, Grid):
        grid = load(changes=grid) if isinstance(grid, Mapping) else load(file=needed(grid, "grid"))
    for cell in cells_of(grid):
        checked(settings_of(grid, cell), training=True)
    chosen: Grid = grid
    return chosen
