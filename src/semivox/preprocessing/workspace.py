"""The workspace: a folder with the data set's index, its splits, its plan and the prepared scans."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semivox.config import Config, SplitConfig
from semivox.datasets.dataset import Dataset, is_index, open_dataset, write_index
from semivox.datasets.splits import SPLITS, Split, load_split, make_split, save_splits
from semivox.errors import UserError, shortened
from semivox.files import locked, read_json
from semivox.manifest import Manifest
from semivox.preprocessing.plan import Plan, save_plan
from semivox.preprocessing.plan_file import PLANS, check_classes, current_plan, new_plan
from semivox.preprocessing.prepare import RECORD, Preparation, clear_store
from semivox.preprocessing.sources import hashes, relative, visible_cases
from semivox.preprocessing.store import Store
from semivox.progress import ProgressFactory, no_progress

DEFAULT_PARENT = Path("semivox-work")
INDEX = "dataset.json"

OnCase = Callable[[Path, Plan, str, np.ndarray, np.ndarray | None], None]  # workspace, plan, case

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """One workspace: its folder, and the data set as it is now; made by `open_workspace`."""

    folder: Path
    dataset: Dataset

    @property
    def splits_file(self) -> Path:
        return self.folder / SPLITS

    @property
    def plan_file(self) -> Path:
        return self.folder / PLANS

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def manifest(self) -> Manifest:
        return Manifest(self.folder)

    def split(self, config: SplitConfig, *, fresh: bool = False) -> Split:
        """Return the split asked for; with default settings that in `splits.json`, if it was edited.

        `fresh`: a file that semivox wrote is not used, even if it was edited.
        """
        kept = self.manifest.is_edited(SPLITS) and not (fresh and self.manifest.owns(SPLITS))
        if config != SplitConfig() or not kept:
            return make_split(self.dataset, config)
        split = load_split(self.splits_file, self.dataset, 0)
        split = split.model_copy(update={"how": f"as edited in {SPLITS}"})
        used = split.roles()
        left = [case.name for case in self.dataset.cases if case.pool != "test" and case.name not in used]
        without = f"; it does not name {shortened(left, 5)}" if left else ""
        log.warning("The split is that of %s, which was edited%s", self.splits_file, without)
        return split

    def is_recorded(self, split: Split) -> bool:
        """Whether index and split of the data set are on disk as they are now."""
        return self._has_split(split) and _stored_index(self.folder) == self.dataset

    def record(self, split: Split) -> None:
        """Write index and split of the data set; an edited `splits.json` is left alone."""
        self.manifest.claim(INDEX)
        write_index(self.dataset, self.folder)
        if not self._has_split(split):
            self.manifest.claim(SPLITS)
            save_splits(self.splits_file, [split])
            self.manifest.sign(SPLITS)

    def _has_split(self, split: Split) -> bool:
        """Whether `splits.json` is this split, or one that the user has edited."""
        if self.manifest.is_edited(SPLITS):
            return True
        folds = [split.model_dump(mode="json")]
        return self.splits_file.exists() and bool(read_json(self.splits_file)["folds"] == folds)

    def preparation(self, split: Split, plan: Plan) -> Preparation:
        """Return what has to be done to the store."""
        known = self.manifest.read().get("measured")
        return Preparation(self.dataset, split, plan, self.store.folder, known)

    def prepare(
        self, todo: Preparation, workers: int, on_case: OnCase | None, progress: ProgressFactory
    ) -> None:
        """Bring the store up to date, and note what was done."""
        names = [job.case.name for job in todo.jobs]
        self.manifest.claim(f"store/{RECORD}", *(map(overlay_name, names) if on_case else ()))
        if new := todo.unmeasured:
            log.warning("New, and not measured for plans.json, which is kept: %s", shortened(new, 5))
        draw = partial(on_case, self.folder, todo.plan) if on_case else None
        with progress("prepare") as report:
            done = todo.run(workers, draw, report)
        self.manifest.report("prepare", cases=done, workers=workers)

    def made_from(self, split: Split, plan: Plan) -> dict[str, Any]:
        """Return what a run on these cases is made from: files, by content, with split and plan."""
        cases, root = read_json(self.store.folder / RECORD)["cases"], self.dataset.root
        roles = {name: role for name, role in split.roles().items() if role != "test"}
        names = [case.name for case in self.dataset.cases if case.name in roles]
        files = {
            relative(path, root): content
            for case in visible_cases(self.dataset, names, (*split.labeled, *split.val))
            for path, content in hashes(case, cases[case.name]).items()
        }
        patches = plan.model_dump(mode="json", include={"patch", "stem", "strides"})
        return {
            "dataset": f"{self.dataset.name} in {root}",
            "split": roles,
            "plan": {**plan.grid_settings(), **patches},
            "files": files,
        }

    def clear(self) -> None:
        """Delete what semivox wrote here; other files stay."""
        if self.manifest.owns(f"store/{RECORD}"):
            clear_store(self.store.folder)
        self.manifest.remove()


def prepare_data(
    data: Path | str,
    *,
    config: Config | None = None,
    work: Path | None = None,
    fresh: bool = False,
    workers: int = 2,
    store: bool = True,
    on_case: OnCase | None = None,
    progress: ProgressFactory = no_progress,
) -> tuple[Workspace, Split, Plan]:
    """Make split, plan and prepared scans of a data set; what is there already and still true is kept.

    Everything is checked first; then what is missing is written, as the only writer. Labels are opened for
    the labeled and the validation cases only.

    Args: as of `semivox.prepare`; of `config`, `split` and `plan` matter; and
        store: False: split and plan alone.
        on_case: draws a case into `overlay_name`; a function of an importable module.

    Raises:
        UserError: bad input; a folder of another data set or that another process writes to; see
            `Preparation.run`.
    """
    config = config or Config()
    workspace = open_workspace(Path(data), work=work, preset=config.preset)
    folder, dataset, manifest = workspace.folder, workspace.dataset, workspace.manifest
    split = workspace.split(config.split, fresh=fresh)
    plan = None if fresh else current_plan(folder, dataset, split, config)
    todo = workspace.preparation(split, plan) if store and plan is not None else None
    if plan is None or (todo is not None and todo.is_needed) or not workspace.is_recorded(split):
        with locked(folder):
            if plan is None:
                manifest.require_own(PLANS)
                plan, sources = new_plan(dataset, split, config, progress, workers, tell=not store)
                if fresh:
                    workspace.clear()
                manifest.claim(PLANS)
                save_plan(plan, workspace.plan_file)
                manifest.sign(PLANS)
                manifest.update(measured=sources)
            workspace.record(split)
            manifest.report("plan", plan=plan.model_dump(mode="json", exclude={"fingerprint"}))
            if store:
                todo = todo or workspace.preparation(split, plan)
                workspace.prepare(todo, workers, on_case, progress)
    if todo is not None:
        check_classes(dataset, [todo.cases[name]["voxels"][1:] for name in split.labeled])
    return workspace, split, plan


def overlay_name(case: str) -> str:
    """Return the path of a case's picture, relative to the workspace."""
    return f"overlays/{case.replace('/', '_')}.png"


def open_workspace(data: Path, *, work: Path | None = None, preset: str | None = None) -> Workspace:
    """Open `data`, a workspace, or the workspace of a raw folder. Nothing is written.

    The cases are those that the raw folder holds now.

    Args:
        data: a workspace, or a folder in nnU-Net raw or MSD layout.
        work: where the workspace of a raw folder is; default `semivox-work/NAME[-PRESET]`.
        preset: part of the default name, since a preset fixes the plan.

    Raises:
        UserError: no data set; a folder that belongs to another data set, or is not semivox's.
    """
    if is_index(data):
        if work is not None and work.resolve() != data.resolve():
            what, found = "--work was given, but the data folder is a workspace already", f"{data} and {work}"
            raise UserError(what, found, "one of them", "leave out --work")
        index = open_dataset(data, strict=False)
        moved = index.root.resolve() == data.resolve() or not (index.root / INDEX).is_file()
        return Workspace(data, open_dataset(data) if moved else open_dataset(index.root))
    dataset = open_dataset(data)
    folder = work or DEFAULT_PARENT / "-".join(filter(None, (dataset.name, preset)))
    if known := _stored_index(folder):
        _require_same(known, dataset, folder)
    Manifest(folder).require_own(INDEX)
    return Workspace(folder, dataset)


def _stored_index(folder: Path) -> Dataset | None:
    """Return the data set as it was when the workspace was written."""
    return open_dataset(folder, strict=False) if is_index(folder) else None


def _require_same(known: Dataset, dataset: Dataset, folder: Path) -> None:
    """Refuse the workspace of another data set; one that was moved with its files is the same."""
    before, now = known.root.resolve(), dataset.root.resolve()
    names = {case["name"] for case in read_json(folder / INDEX)["cases"]}  # also those whose files are gone
    moved = not before.exists() and not names.isdisjoint(case.name for case in dataset.cases)
    if before != now and not moved:
        what, do = "The workspace belongs to another data set", "choose another --work folder"
        raise UserError(what, f"{known.name} in {before}", f"{dataset.name} in {now}", do, folder)
