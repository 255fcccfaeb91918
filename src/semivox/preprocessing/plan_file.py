"""The plan of a workspace on disk: whether it still holds, and how a new one is made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semivox.config import Config
from semivox.datasets.check_set import missing_classes
from semivox.datasets.dataset import Dataset
from semivox.datasets.listing import Notice
from semivox.datasets.splits import Split
from semivox.errors import UserError, shortened
from semivox.files import signature
from semivox.manifest import Manifest
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.plan import Plan, load_plan, save_plan
from semivox.preprocessing.planner import make_plan
from semivox.progress import ProgressFactory

NAME = "plans.json"
_DECLARED = ("channels", "class_names", "class_values", "ignore_value")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanFile:
    """`plans.json` of a workspace."""

    folder: Path
    dataset: Dataset

    @property
    def path(self) -> Path:
        return self.folder / NAME

    @property
    def manifest(self) -> Manifest:
        return Manifest(self.folder)

    def current(self, split: Split, config: Config) -> Plan | None:
        """Return the plan in `plans.json`; None if there is none, or if it is no longer true.

        An edited plan is kept as long as it fits the channels and classes of the data set.

        Raises:
            UserError: the plan contradicts settings that are asked for now, or was made with labels that
                `split` hides.
        """
        if not self.path.exists():
            return None
        plan, edited = load_plan(self.path), self.manifest.is_edited(NAME)
        declared = [name for name in _DECLARED if getattr(plan, name) != getattr(self.dataset, name)]
        changed = [f"{name} in dataset.json" for name in declared] + self._changed_files(plan, split)
        if changed and not edited:
            log.warning("Planned anew, because this has changed: %s", shortened(changed, 5))
            return None
        if declared:
            what, found = "The edited plan does not fit the data set any more", ", ".join(declared)
            do = "correct these entries, or delete the file and run semivox plan again"
            raise UserError(what, f"another {found}", "as in dataset.json", do, self.path)
        if changed:
            log.warning("%s was edited and is kept, but these have changed: %s", NAME, shortened(changed, 5))
        self._check_settings(plan, config)
        self._check_labels_seen(plan, split)
        return plan

    def make(
        self, split: Split, config: Config, progress: ProgressFactory, workers: int
    ) -> tuple[Plan, dict[str, Any]]:
        """Measure the scans and choose a plan; return also what it was made from. Nothing is written.

        Raises:
            UserError: unusable files; labels that are all empty; a `plans.json` that semivox did not write.
        """
        self.manifest.require_own(NAME)
        trust = bool(config.plan.trust_image_geometry)
        with progress("fingerprint") as report:
            measured = fingerprint(self.dataset, split, report, workers=workers, trust_image_geometry=trust)
        check_classes(self.dataset, measured.class_volumes_ml())
        return make_plan(self.dataset, split, config.plan, measured=measured), measured.sources

    def save(self, plan: Plan, sources: dict[str, Any]) -> None:
        """Write a plan of `make`."""
        self.manifest.claim(NAME)
        save_plan(plan, self.path)
        self.manifest.sign(NAME)
        self.manifest.update(measured=sources)

    def _changed_files(self, plan: Plan, split: Split) -> list[str]:
        """List files that the plan was made from and that are different now; labels only count for CT."""
        with_labels = {*split.labeled, *split.val} if "ct" in plan.normalisation else set()
        now, changed = {case.name: case for case in self.dataset.cases}, []
        for name, known in (self.manifest.read().get("measured") or {}).items():
            if name not in now:
                changed.append(f"{name}, which is gone")
                continue
            files = list(zip(now[name].images, known["image"], strict=False))
            if name in with_labels and known["label"] and (label := now[name].label):
                files.append((label, known["label"]))
            changed += [
                relative(path, self.dataset.root)
                for path, mark in files
                if signature(path, mark)[-1] != mark[-1]
            ]
        return changed

    def _check_settings(self, plan: Plan, config: Config) -> None:
        asked = config.plan.model_dump(exclude_none=True)
        if "normalisation" in asked:
            asked["normalisation"] = (asked["normalisation"],) * len(plan.channels)
        stored = plan.model_dump()
        if "spacing_mm" in asked:  # which decides the grid alone
            asked = {key: value for key, value in asked.items() if key not in ("grid", "fidelity")}
        differing = {key: (stored[key], value) for key, value in asked.items() if stored[key] != value}
        if differing:
            found = "; ".join(f"{key}: {old} stored, {new} asked" for key, (old, new) in differing.items())
            do = "choose another --work folder, or make this one anew with: semivox prepare --fresh"
            what = "The workspace was planned with other settings"
            raise UserError(what, found, "the same plan", do, self.path)

    def _check_labels_seen(self, plan: Plan, split: Split) -> None:
        hidden = sorted(set(plan.fingerprint.get("labeled_cases", ())) - set(split.labeled) - set(split.val))
        if "ct" in plan.normalisation and hidden:
            raise UserError(
                "The workspace's intensity window was planned with labels that this split hides",
                shortened(hidden, 5),
                "a plan made from labeled cases of this split only",
                "choose another --work folder for this split",
                self.path,
            )


def check_classes(dataset: Dataset, sizes: Sequence[Sequence[float]], *, tell: bool = False) -> None:
    """Refuse labels that are all empty; tell of classes that none of them holds."""
    for problem in missing_classes(dataset, [[1.0, *row] for row in sizes]):
        if not isinstance(problem, Notice):
            raise problem
        if tell:
            log.warning("%s: %s; %s", problem.what, problem.found, problem.do)


def relative(path: Path, root: Path) -> str:
    """Return a path as text, relative to `root` if it is inside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
