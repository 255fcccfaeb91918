"""The plan of a workspace on disk: whether it still holds, and how a new one is made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semivox.config import Config
from semivox.datasets.case import Notice
from semivox.datasets.check import missing_classes
from semivox.datasets.dataset import Dataset
from semivox.datasets.splits import Split
from semivox.errors import UserError, shortened
from semivox.manifest import Manifest
from semivox.preprocessing.fingerprint import fingerprint
from semivox.preprocessing.plan import DECLARED, Plan, load_plan
from semivox.preprocessing.planner import make_plan
from semivox.preprocessing.sources import changed_files, relative
from semivox.progress import ProgressFactory

PLANS = "plans.json"

log = logging.getLogger(__name__)


def current_plan(folder: Path, dataset: Dataset, split: Split, config: Config) -> Plan | None:
    """Return the plan in `plans.json`; None if there is none, or if it is no longer true.

    An edited plan is kept as long as it fits the channels and classes of the data set.

    Raises:
        UserError: the plan contradicts settings that are asked for now, or was made with labels that
            `split` hides.
    """
    path, manifest = folder / PLANS, Manifest(folder)
    if not path.exists():
        return None
    plan, edited = load_plan(path), manifest.is_edited(PLANS)
    declared = [name for name in DECLARED if getattr(plan, name) != getattr(dataset, name)]
    measured, is_ct = manifest.read().get("measured") or {}, "ct" in plan.normalisation
    changed = [f"{name} in dataset.json" for name in declared]
    changed += _changed_files(measured, dataset, {*split.labeled, *split.val} if is_ct else set())
    if changed and not edited:
        log.warning("Planned anew, because this has changed: %s", shortened(changed, 5))
        return None
    if declared:
        what, found = "The edited plan does not fit the data set any more", ", ".join(declared)
        do = "correct these entries, or delete the file and run semivox plan again"
        raise UserError(what, f"another {found}", "as in dataset.json", do, path)
    if changed:
        log.warning("%s was edited and is kept, but these have changed: %s", PLANS, shortened(changed, 5))
    _check_settings(plan, config, path)
    hidden = sorted(set(plan.fingerprint.get("labeled_cases", ())) - set(split.labeled) - set(split.val))
    if is_ct and hidden:
        what = "The workspace's intensity window was planned with labels that this split hides"
        do = "choose another --work folder for this split"
        raise UserError(what, shortened(hidden, 5), "labeled cases of this split only", do, path)
    return plan


def new_plan(
    dataset: Dataset, split: Split, config: Config, progress: ProgressFactory, workers: int, *, tell: bool
) -> tuple[Plan, dict[str, Any]]:
    """Measure the scans and choose a plan; return also what it was made from. Nothing is written.

    With `tell`, classes that no label holds are told of.
    """
    trust = bool(config.plan.trust_image_geometry)
    with progress("fingerprint") as report:
        measured = fingerprint(dataset, split, report, workers=workers, trust_image_geometry=trust)
    check_classes(dataset, [list(volumes.values()) for volumes in measured.volumes_ml.values()], tell=tell)
    return make_plan(dataset, measured, config.plan), measured.sources


def _changed_files(known: dict[str, Any], dataset: Dataset, labeled: set[str]) -> list[str]:
    """List files that a plan was made from and that are different now; labels of the `labeled` count."""
    cases, changed = {case.name: case for case in dataset.cases}, []
    for name, marks in known.items():
        if name in cases:
            case = cases[name] if name in labeled else replace(cases[name], label=None)
            changed += [relative(path, dataset.root) for path in changed_files(case, marks)[1]]
        else:
            changed.append(f"{name}, which is gone")
    return changed


def _check_settings(plan: Plan, config: Config, path: Path) -> None:
    asked, stored = config.plan.model_dump(exclude_none=True), plan.model_dump()
    if "normalisation" in asked:
        asked["normalisation"] = (asked["normalisation"],) * len(plan.channels)
    decided = ("grid", "fidelity") if "spacing_mm" in asked else ()  # by the voxel size alone
    other = [key for key in asked if stored[key] != asked[key] and key not in decided]
    if other:
        found = "; ".join(f"{key}: {stored[key]} stored, {asked[key]} asked" for key in other)
        do = f"choose another --work folder, or make this one anew: semivox prepare -d {path.parent} --fresh"
        raise UserError("The workspace was planned with other settings", found, "the same plan", do, path)


def check_classes(dataset: Dataset, sizes: Sequence[Sequence[float]], *, tell: bool = True) -> None:
    """Refuse labels that are all empty; tell of classes that none of them holds."""
    for problem in missing_classes(dataset, sizes):
        if not isinstance(problem, Notice):
            raise problem
        if tell:
            log.warning("%s: %s; %s", problem.what, problem.found, problem.do)
