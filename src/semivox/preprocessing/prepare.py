"""From scans to the store, in parallel; what is in it already, and still true, is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semivox.errors import UserError, shortened
from semivox.files import read_json, write_json
from semivox.io.reader import machine_memory, run_jobs
from semivox.io.volume import IGNORE, read_image, read_label
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.resample import label_shares, label_to_working_grid, to_working_grid
from semivox.preprocessing.sources import changed_files, sources_of, visible_cases
from semivox.preprocessing.store import Store
from semivox.progress import Progress

if TYPE_CHECKING:
    from semivox.datasets.dataset import Case, Dataset
    from semivox.datasets.splits import Split

Array = npt.NDArray[Any]
OnCase = Callable[[str, Array, Array | None], None]

RECORD = "store.json"
_PROCESS_BYTES = 500_000_000
_MEMORY_SHARE = 0.7
_SAVE_EVERY_S = 1.0

log = logging.getLogger(__name__)


class Preparation:
    """What has to be done so that a store holds the cases of a split; making one writes nothing.

    A case is prepared anew if a file that it was made from has changed; a case or label that has left the
    data set leaves the store; another voxel size, crop or normalisation means to prepare all cases anew.
    Label files are opened for labeled and validation cases only. Test cases are not prepared.

    `known` are signatures of files, by case, which then need not be read; see `sources_of`.

    Raises:
        UserError: a labeled or validation case has no label file; the folder holds another `store.json`.
    """

    def __init__(
        self, dataset: Dataset, split: Split, plan: Plan, folder: Path, known: Mapping[str, Any] | None = None
    ) -> None:
        self.store, self.plan = Store(folder), plan
        self.reasons: list[str] = []  # what has changed since the store was made, in words
        self.jobs: list[_Job] = []  # the cases to prepare
        self._recorded = self._read_record()  # what the store has of each case, and from which files
        names, present = [*split.labeled, *split.val, *split.unlabeled], {case.name for case in dataset.cases}
        if left := [name for name in self._recorded if name not in present]:
            text = "No longer in the data set, and removed from the store"
            self.reasons.append(f"{text}: {shortened(left, 5)}")
        # What will be recorded; of another plan's store only what is asked for. `voxels`: of each class.
        items = self._recorded.items()
        self.cases = {name: old for name, old in items if name in present and (old or name in names)}
        for case in visible_cases(dataset, names, (*split.labeled, *split.val)):
            if entry := self._still_true(case, has_label=dataset.case(case.name).label is not None):
                self.cases[case.name] = entry
            else:
                self.jobs.append(_Job(case, (known or {}).get(case.name)))
        self.unmeasured = [job.case.name for job in self.jobs if known and job.known is None]
        self._total = len(names)

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.jobs) or self.cases != self._recorded

    def run(self, workers: int, on_case: OnCase | None = None, progress: Progress | None = None) -> list[str]:
        """Bring the cases to the working grid and into the store; return the names of those written now.

        Args:
            workers: processes; 0 works in this one. Fewer are started when memory would not suffice.
            on_case: called in the worker with name, image (C, X, Y, Z) and label (X, Y, Z) or None on the
                working grid, before the case is written; with workers, a function of an importable module.
            progress: called after each case with the number of prepared cases, of all, and the case's name.

        Raises:
            UserError: a file is damaged or unusable (the other cases are prepared first), the disk is full,
                or a worker died. What is already in the store stays usable.
        """
        if not self.is_needed:
            return []
        for reason in self.reasons:
            log.warning(reason)
        for name in self._recorded.keys() - self.cases.keys():
            self.store.remove(name)
        self.cases |= {job.case.name: {} for job in self.jobs}
        self._save()
        workers = _affordable(min(workers, len(self.jobs)), self.plan)
        prepare = partial(_prepare_case, plan=self.plan, store=self.store, on_case=on_case)
        done = run_jobs(prepare, self.jobs, workers, name=lambda job: job.case.name, doing="preparing")
        saved, ready = time.monotonic(), self._total - len(self.jobs)
        try:
            for count, (job, entry) in enumerate(done, start=ready + 1):
                self.cases[job.case.name] = entry
                if time.monotonic() > saved + _SAVE_EVERY_S:
                    self._save()
                    saved = time.monotonic()
                if progress is not None:
                    progress(count, self._total, job.case.name)
        finally:
            self._save()
        return [job.case.name for job in self.jobs]

    def _read_record(self) -> dict[str, Any]:
        """Read what the store holds; of a store for another plan nothing is usable."""
        path, wanted = self.store.folder / RECORD, self.plan.grid_settings()
        content = read_json(path) if path.exists() else {"plan": wanted, "cases": {}}
        if not isinstance(content, dict) or not {"plan", "cases"} <= content.keys():
            what, expected = "The folder holds a store.json of another program", "a store of semivox"
            raise UserError(what, None, expected, "choose another --work folder", path)
        if different := sorted(key for key in wanted if content["plan"].get(key) != wanted[key]):
            self.reasons.append(f"The plan has another {', '.join(different)}: all scans are prepared anew")
            return {name: {} for name in content["cases"]}
        return dict(content["cases"])

    def _still_true(self, case: Case, *, has_label: bool) -> dict[str, Any] | None:
        """Return what to record of a case that the store has as its files are now; else note why not."""
        old = self.cases.get(case.name) or {}
        if old.get("label") and not has_label:
            self.reasons.append(f"The label file of {case.name} is gone: the case is prepared without it")
            return None
        if not old or not self.store.has_image(case.name):
            return None
        now, changed = changed_files(case, old)
        self.reasons += [f"{path} has changed: {case.name} is prepared anew" for path in changed]
        lacks_label = case.label is not None and not (old["label"] and self.store.has_label(case.name))
        return None if changed or lacks_label else {**old, **now, "label": now["label"] or old["label"]}

    def _save(self) -> None:
        content = {"plan": self.plan.grid_settings(), "cases": self.cases}
        write_json(self.store.folder / RECORD, content)


def clear_store(folder: Path) -> None:
    """Delete what `prepare` wrote; other files stay."""
    path, store = folder / RECORD, Store(folder)
    content = read_json(path) if path.is_file() else {}
    for name in content.get("cases") or {}:
        store.remove(name)
    path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


class _Job(NamedTuple):
    """A case to prepare, and signatures of its files, if they were made before.

    An unlabeled case comes without the path of its label.
    """

    case: Case
    known: Mapping[str, Any] | None


def _prepare_case(job: _Job, plan: Plan, store: Store, on_case: OnCase | None) -> dict[str, Any]:
    """Prepare one case; return what `store.json` keeps of it."""
    case, trust, label, voxels = job.case, plan.trust_image_geometry, None, None
    sources = sources_of(case, job.known)  # before reading: a change meanwhile shows the next time
    image = read_image(case.images, plan.channels, trust_image_geometry=trust)
    array, grid = to_working_grid(image, plan, case.images[0])
    if case.label is not None:
        raw = read_label(case.label, plan.class_values, image, plan.ignore_value, trust_image_geometry=trust)
        label = label_to_working_grid(raw.array, grid)
    del image
    if on_case is not None:
        on_case(case.name, array, None if label is None else np.where(label == IGNORE, 0, label))
    store.remove(case.name)  # also shares, which a case that is not resampled does not get
    if label is not None:
        store.write_label(case.name, label)
        if grid.shape != grid.crop_shape:
            store.write_shares(case.name, label_shares(raw.array, grid, len(plan.class_values)))
        voxels = np.bincount(label[label != IGNORE], minlength=len(plan.class_values)).tolist()
    store.write_image(case.name, array, {"grid": grid.as_dict()})
    return {**sources, "voxels": voxels}


def _affordable(workers: int, plan: Plan) -> int:
    """Reduce the workers to what memory allows for the float maps of the largest scan that was measured."""
    memory, channels, measured = machine_memory(), len(plan.channels), plan.fingerprint
    if workers < 2 or memory is None or not {"voxels", "spacing_mm"} <= measured.keys():
        return workers
    finer = prod(measured["spacing_mm"]["median"]) / prod(plan.spacing_mm)
    maps = 2 * channels + 4 + finer * (channels + 3)
    need = _PROCESS_BYTES + 4 * measured["voxels"]["max"] * maps
    possible = max(1, int(_MEMORY_SHARE * memory / need))
    if possible < workers:
        log.warning("%d workers instead of %d: one may need %.1f GB", possible, workers, need / 1e9)
    return min(workers, possible)
