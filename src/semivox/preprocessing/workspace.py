"""The workspace: a folder with the data set's index, its splits, its plan and the prepared scans."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from semivox.config import Config, SplitConfig
from semivox.datasets.dataset import Dataset, open_dataset, write_index
from semivox.datasets.splits import Split, load_split, make_split, save_splits
from semivox.errors import UserError
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.plan import Plan, load_plan, save_plan
from semivox.preprocessing.planner import make_plan
from semivox.preprocessing.store import Store
from semivox.progress import ProgressFactory, no_progress

DEFAULT_PARENT = Path("semivox-work")


@dataclass(frozen=True)
class Workspace:
    """Paths and contents of one workspace; made by `open_workspace`."""

    folder: Path
    dataset: Dataset

    @property
    def splits_file(self) -> Path:
        return self.folder / "splits.json"

    @property
    def plan_file(self) -> Path:
        return self.folder / "plans.json"

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def overlays(self) -> Path:
        return self.folder / "overlays"

    def split(self, config: SplitConfig) -> Split:
        """The split asked for; with default settings the one in `splits.json`, which may be edited.

        The first split made in a workspace is saved there.
        """
        if config == SplitConfig() and self.splits_file.exists():
            return load_split(self.splits_file, self.dataset, 0)
        split = make_split(self.dataset, config)
        if not self.splits_file.exists():
            save_splits(self.splits_file, [split])
        return split

    def plan(
        self, split: Split, config: Config, progress: ProgressFactory = no_progress, workers: int = 0
    ) -> Plan:
        """The plan in `plans.json`, or a new one made from the scans and the labeled cases of `split`.

        Raises:
            UserError: when the stored plan contradicts settings that are asked for now, or was made with
                labels that `split` hides.
        """
        if not self.plan_file.exists():
            with progress("fingerprint") as report:
                trust = bool(config.plan.trust_image_geometry)
                measured = fingerprint(
                    self.dataset, split, report, workers=workers, trust_image_geometry=trust
                )
            plan = make_plan(self.dataset, split, config.plan, measured=measured)
            save_plan(plan, self.plan_file)
            return plan
        plan = load_plan(self.plan_file)
        self._check(plan, config)
        self._check_labels_seen(plan, split)
        return plan

    def _check(self, plan: Plan, config: Config) -> None:
        asked = config.plan.model_dump(exclude_none=True)
        if "normalisation" in asked:
            asked["normalisation"] = (asked["normalisation"],) * len(plan.channels)
        stored = plan.model_dump()
        differing = {key: (stored[key], value) for key, value in asked.items() if stored[key] != value}
        if differing:
            raise UserError(
                "The workspace was planned with other settings",
                path=self.plan_file,
                found="; ".join(f"{key}: {old} stored, {new} asked" for key, (old, new) in differing.items()),
                expected="the same plan",
                do="choose another --work folder, or make this one anew with: semivox prepare --fresh",
            )

    def _check_labels_seen(self, plan: Plan, split: Split) -> None:
        hidden = sorted(set(plan.fingerprint.get("labeled_cases", ())) - set(split.labeled) - set(split.val))
        if "ct" in plan.normalisation and hidden:
            raise UserError(
                "The workspace's intensity window was planned with labels that this split hides",
                path=self.plan_file,
                found=", ".join(hidden[:5]) + (" ..." if len(hidden) > 5 else ""),
                expected="a plan made from labeled cases of this split only",
                do="choose another --work folder for this split",
            )


def stored_split(data: Path, dataset: Dataset, config: SplitConfig) -> Split:
    """The split asked for; with default settings a workspace's own. Nothing is written."""
    workspace = Workspace(data, dataset)
    if config == SplitConfig() and is_workspace(data) and workspace.splits_file.exists():
        return load_split(workspace.splits_file, dataset, 0)
    return make_split(dataset, config)


def open_workspace(data: Path, *, work: Path | None = None, preset: str | None = None) -> Workspace:
    """Open `data`: a workspace, or a raw folder, for which a workspace is made.

    Args:
        data: a workspace, or a folder in nnU-Net raw or MSD layout.
        work: where the workspace of a raw folder goes; default `semivox-work/NAME[-PRESET]`.
        preset: part of the default name, since a preset fixes the plan.
    """
    dataset = open_dataset(data)
    if is_workspace(data):
        if work is not None and work.resolve() != data.resolve():
            raise UserError(
                "--work was given, but the data folder is a workspace already",
                found=f"--data {data} and --work {work}",
                expected="one of them",
                do="leave out --work",
            )
        return Workspace(data, dataset)
    folder = work or DEFAULT_PARENT / "-".join(filter(None, (dataset.name, preset)))
    if is_workspace(folder):
        known = open_dataset(folder)
        if known.root.resolve() != dataset.root.resolve() and known.name != dataset.name:
            raise UserError(
                "The workspace belongs to another data set",
                path=folder,
                found=known.name,
                expected=dataset.name,
                do="choose another --work folder",
            )
    write_index(dataset, folder)
    return Workspace(folder, dataset)


def clear_workspace(workspace: Workspace) -> None:
    """Delete plan, splits and prepared scans; the data set's index stays."""
    for folder in (workspace.folder / "store", workspace.overlays):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (workspace.plan_file, workspace.splits_file):
        file.unlink(missing_ok=True)


def is_workspace(folder: Path) -> bool:
    """Whether a folder is a workspace, and not raw data."""
    index = folder / "dataset.json"
    if not index.is_file():
        return False
    return '"format": "semivox"' in index.read_text(encoding="utf-8", errors="replace")
