"""From scans to the store, in parallel; what is in it already, and still true, is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from semivox.errors import UserError, shortened
from semivox.files import read_json, write_json
from semivox.io.reader import machine_memory, run_jobs
from semivox.io.volume import IGNORE, read_image, read_label
from semivox.preprocessing.fingerprint import sources_of
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.resample import label_shares, label_to_working_grid, to_working_grid
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
        self.store, self.plan, self.known = Store(folder), plan, known or {}
        self.names = [*split.labeled, *split.val, *split.unlabeled]
        self.reasons: list[str] = []  # what has changed since the store was made, in words
        self.jobs: list[_Job] = []  # the cases to prepare
        self.cases = self._recorded()  # what the store holds of each case, and from which files it was made
        self._gone = self._find_gone({case.name: case for case in dataset.cases})
        self._touched = False  # files have other times and the same content
        allowed = {*split.labeled, *split.val}
        for case in map(dataset.case, self.names):
            if case.name in allowed and case.label is None:
                what, do = f"The case {case.name} has no label file", "add it, or make another split"
                raise UserError(what, None, "one for every labeled and validation case", do)
            self._compare(case if case.name in allowed else replace(case, label=None))

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.jobs or self._gone or self._touched)

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
        for name, kind in self._gone:
            self.store.remove(name, kind)
        self.cases |= {job.case.name: {} for job in self.jobs}
        self._save()
        jobs, total = [job._replace(on_case=on_case) for job in self.jobs], len(self.names)
        workers = _affordable(min(workers, len(jobs)), self.plan)
        done = run_jobs(_prepare_case, jobs, workers, name=lambda job: job.case.name, doing="preparing")
        saved = time.monotonic()
        try:
            for count, (job, entry) in enumerate(done, start=1):
                self.cases[job.case.name] = entry
                if time.monotonic() > saved + _SAVE_EVERY_S:
                    self._save()
                    saved = time.monotonic()
                if progress is not None:
                    progress(total - len(jobs) + count, total, job.case.name)
        finally:
            self._save()
        return [job.case.name for job in jobs]

    def class_voxels(self, names: Sequence[str]) -> list[list[int]]:
        """Return the voxels of each foreground class in the stored labels of these cases."""
        return [self.cases[name]["voxels"][1:] for name in names]

    def _recorded(self) -> dict[str, Any]:
        """Read what the store holds; of a store for another plan nothing is usable."""
        path, wanted = self.store.folder / RECORD, self.plan.grid_settings()
        if not path.exists():
            return {}
        content = read_json(path)
        if not isinstance(content, dict) or not {"plan", "cases"} <= content.keys():
            what, expected = "The folder holds a store.json of another program", "a store of semivox"
            raise UserError(what, None, expected, "choose another --work folder", path)
        if different := sorted(key for key in wanted if content["plan"].get(key) != wanted[key]):
            self.reasons.append(f"The plan has another {', '.join(different)}: all scans are prepared anew")
            return {name: {} for name in content["cases"]}
        return dict(content["cases"])

    def _find_gone(self, cases: Mapping[str, Case]) -> list[tuple[str, str]]:
        """List what leaves the store, and forget it."""
        gone = []
        for name, entry in list(self.cases.items()):
            if name not in cases or not (entry or name in self.names):
                gone += [(name, "image"), (name, "label")]
                del self.cases[name]
            elif cases[name].label is None and entry.get("label"):
                gone.append((name, "label"))
                self.cases[name] = {**entry, "label": None, "voxels": None}
                self.reasons.append(f"The label file of {name} is gone: its label is removed from the store")
        if left := [name for name, kind in gone if kind == "image" and name not in cases]:
            text = "No longer in the data set, and removed from the store"
            self.reasons.append(f"{text}: {shortened(left, 5)}")
        return gone

    def _compare(self, case: Case) -> None:
        """Make a job of a case if the store does not hold it as its files are now."""
        old = self.cases.get(case.name) or {}
        if not old or not self.store.has_image(case.name):
            self.jobs.append(_Job(case, self.plan, self.store.folder, self.known.get(case.name)))
            return
        now = sources_of(case, old)
        same_image = [item[-1] for item in now["image"]] == [item[-1] for item in old["image"]]
        triples = [*zip(case.images, now["image"], old["image"], strict=False)]
        if case.label is not None and old["label"]:
            triples.append((case.label, now["label"], old["label"]))
        changed = [path for path, new, before in triples if new[-1] != before[-1]]
        self.reasons += [f"{path} has changed: {case.name} is prepared anew" for path in changed]
        has_label = bool(old["label"]) and self.store.has_label(case.name) and case.label not in changed
        if not same_image or (case.label is not None and not has_label):
            self.jobs.append(_Job(case, self.plan, self.store.folder, now, with_image=not same_image))
            if case.label is None:
                self._gone.append((case.name, "label"))
        elif (entry := {**old, "image": now["image"], "label": now["label"] or old["label"]}) != old:
            self.cases[case.name], self._touched = entry, True

    def _save(self) -> None:
        content = {"plan": self.plan.grid_settings(), "cases": self.cases}
        write_json(self.store.folder / RECORD, content)


def clear_store(folder: Path) -> None:
    """Delete what `prepare` wrote; other files stay."""
    path, store = folder / RECORD, Store(folder)
    content = read_json(path) if path.is_file() else {}
    for name in content.get("cases") or {}:
        store.remove(name, "image")
        store.remove(name, "label")
    path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


class _Job(NamedTuple):
    """What a worker gets; an unlabeled case comes without the path of its label."""

    case: Case
    plan: Plan
    folder: Path
    known: Mapping[str, Any] | None
    with_image: bool = True
    on_case: OnCase | None = None


def _prepare_case(job: _Job) -> dict[str, Any]:
    """Prepare one case; return what `store.json` keeps of it."""
    store, plan, case, label = Store(job.folder), job.plan, job.case, None
    sources = sources_of(case, job.known)  # before reading: a change meanwhile shows the next time
    trust = plan.trust_image_geometry
    image = read_image(case.images, plan.channels, trust_image_geometry=trust)
    array, grid = to_working_grid(image, plan, case.images[0])
    if case.label is not None:
        raw = read_label(case.label, plan.class_values, image, plan.ignore_value, trust_image_geometry=trust)
        label = label_to_working_grid(raw.array, grid)
    del image
    if job.on_case is not None:
        job.on_case(case.name, array, None if label is None else np.where(label == IGNORE, 0, label))
    voxels = None
    if label is not None:
        store.write_label(case.name, label)
        if grid.shape != grid.crop_shape:
            store.write_shares(case.name, label_shares(raw.array, grid, len(plan.class_values)))
        voxels = np.bincount(label[label != IGNORE], minlength=len(plan.class_values)).tolist()
    if job.with_image:
        store.write_image(case.name, array, {"grid": grid.as_dict()})
    return {**sources, "voxels": voxels}


def _affordable(workers: int, plan: Plan) -> int:
    """Reduce the workers to what memory allows for the float maps of the largest scan that was measured."""
    memory, channels = machine_memory(), len(plan.channels)
    try:
        source = float(plan.fingerprint["voxels"]["max"])
        finer = float(prod(plan.fingerprint["spacing_mm"]["median"])) / prod(plan.spacing_mm)
    except (KeyError, TypeError, ValueError):  # the plan file may have been edited
        source, finer = 0.0, 0.0
    need = _PROCESS_BYTES + 4 * source * (2 * channels + 4 + finer * (channels + 3))
    if workers < 2 or memory is None or (possible := max(1, int(_MEMORY_SHARE * memory / need))) >= workers:
        return workers
    log.warning("%d workers instead of %d: one may need %.1f GB", possible, workers, need / 1e9)
    return possible
