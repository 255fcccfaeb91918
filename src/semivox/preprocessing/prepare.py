"""From scans to the store, in parallel; it goes on where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.io.reader import machine_memory, run_jobs
from semivox.io.volume import IGNORE, read_image, read_label
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.resample import label_to_plan_grid, to_plan_grid
from semivox.preprocessing.store import Store
from semivox.progress import Progress

if TYPE_CHECKING:
    from semivox.datasets.dataset import Case, Dataset
    from semivox.datasets.splits import Split

Array = npt.NDArray[Any]
OnCase = Callable[[str, Array, Array | None], None]

_KEY = ("channels", "class_values", "spacing_mm", "normalisation", "crop")
_PROCESS_BYTES = 500_000_000
_MEMORY_SHARE = 0.7

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """What a worker gets; an unlabeled case comes without the path of its label."""

    name: str
    images: tuple[Path, ...]
    label: Path | None
    plan: Plan
    folder: Path
    on_case: OnCase | None


def prepare(
    dataset: Dataset,
    split: Split,
    plan: Plan,
    folder: Path,
    *,
    workers: int = 2,
    on_case: OnCase | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Bring the labeled, unlabeled and validation cases to the plan's grid and into a store.

    Cases that are already whole in the store are skipped; a case that became labeled gets its label added.
    Label files are opened for labeled and validation cases only. Test cases are not prepared.

    Args:
        dataset: the cases.
        split: which cases, and which labels.
        plan: voxel size, crop and normalisation.
        folder: of the store itself (what `Store` gets), usually `store/` in the workspace.
        workers: processes; 0 works in this one. Fewer are started when memory would not suffice.
        on_case: called in the worker with name, image (C, X, Y, Z) and label (X, Y, Z) or None on the plan's
            grid, before the case is written; with workers it has to be a function of an importable module.
        progress: called after each case with the number of prepared cases, of all, and the case's name.

    Returns:
        The names of the cases that were written now, in the order of the split.

    Raises:
        UserError: a file is damaged or unusable, the disk is full, a worker died, or the store was prepared
            with another plan. What is already in the store stays usable.
    """
    claim(folder, plan)
    store, jobs = Store(folder), []
    names = [*split.labeled, *split.val, *split.unlabeled]
    allowed = {*split.labeled, *split.val}
    for case in map(dataset.case, names):
        label = _label_file(case) if case.name in allowed else None
        if not store.has_image(case.name) or (label is not None and not store.has_label(case.name)):
            jobs.append(_Job(case.name, tuple(case.images), label, plan, folder, on_case))
    written = set()
    workers = _affordable(min(workers, len(jobs)), plan)
    for job, _ in run_jobs(_prepare_case, jobs, workers, name=lambda job: job.name, doing="preparing"):
        written.add(job.name)
        if progress is not None:
            progress(len(names) - len(jobs) + len(written), len(names), job.name)
    return [job.name for job in jobs if job.name in written]


def claim(folder: Path, plan: Plan) -> None:
    """Note in the store what it is prepared for, or check that it is this plan.

    Raises:
        UserError: the store was prepared with other settings.
    """
    path = folder / "store.json"
    wanted = plan.model_dump(mode="json", include=set(_KEY))
    if plan.ignore_value is not None:
        wanted["ignore_value"] = plan.ignore_value
    if "ct" in plan.normalisation:
        wanted["intensity"] = plan.model_dump(mode="json")["intensity"]
    if not path.exists():
        write_json(path, wanted)
        return
    found = read_json(path)
    found = found if isinstance(found, dict) else {}
    different = sorted(key for key in wanted.keys() | found.keys() if found.get(key) != wanted.get(key))
    if different:
        raise UserError(
            "The scans in this workspace were prepared with another plan",
            path=path,
            found="; ".join(f"{key} {found.get(key)}" for key in different),
            expected="; ".join(f"{key} {wanted.get(key)}" for key in different),
            do="prepare anew with --fresh, or use another workspace",
        )


def _label_file(case: Case) -> Path:
    if case.label is None:
        raise UserError(
            f"The case {case.name} has no label file",
            found="no label file",
            expected="one for every labeled and validation case",
            do="add the file, or make a split in which the case is unlabeled",
        )
    return case.label


def _prepare_case(job: _Job) -> None:
    store = Store(job.folder)
    trust = job.plan.trust_image_geometry
    image = read_image(job.images, channels=job.plan.channels, trust_image_geometry=trust)
    array, grid = to_plan_grid(image, job.plan)
    label = None
    if job.label is not None:
        plan = job.plan
        raw = read_label(job.label, plan.class_values, image, plan.ignore_value, trust_image_geometry=trust)
        label = label_to_plan_grid(raw.array, grid)
    del image
    if job.on_case is not None:
        job.on_case(job.name, array, None if label is None else np.where(label == IGNORE, 0, label))
    if label is not None:
        store.write_label(job.name, label)
    if not store.has_image(job.name):
        store.write_image(job.name, array, {"grid": grid.as_dict()})


def _affordable(workers: int, plan: Plan) -> int:
    """Reduce the number of workers to what memory allows for the largest scan that was measured."""
    need = _PROCESS_BYTES + _case_bytes(plan)
    memory = machine_memory()
    if workers < 2 or memory is None:
        return workers
    possible = max(1, int(_MEMORY_SHARE * memory / need))
    if possible < workers:
        log.warning("%d workers instead of %d: one may need %.1f GB", possible, workers, need / 1e9)
    return min(workers, possible)


def _case_bytes(plan: Plan) -> float:
    """Estimate the peak memory of one scan from the float maps that exist at once; 0 if nothing is known."""
    try:
        source = float(plan.fingerprint["voxels"]["max"])
        finer = float(prod(plan.fingerprint["spacing_mm"]["median"])) / prod(plan.spacing_mm)
    except (KeyError, TypeError, ValueError):  # the plan file may have been edited
        return 0.0
    channels = len(plan.channels)
    return 4 * source * (2 * channels + 4 + finer * (channels + 3))
