"""How long the cells of a grid will take: measured on finished ones, else from a probe of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from statistics import mean

from semivox.benchmark.cells import Job
from semivox.benchmark.compare import read_cell
from semivox.files import read_json, write_json
from semivox.inference.cover import tiling
from semivox.inference.windows import window_starts, window_stride
from semivox.patches.patch_sizes import patch_sizes
from semivox.training.assemble import VALIDATIONS, Training, batch_sizes

FORWARD_SHARE = 1 / 3  # of a training step: one pass forward, two backward


class Estimator:
    """Estimates in seconds; probes are made once for each preset and method, and kept in a file.

    Args:
        jobs: all cells.
        file: where the measured steps are kept.
    """

    def __init__(self, jobs: Sequence[Job], file: Path) -> None:
        self._jobs, self._file = jobs, file
        self._steps: dict[str, float] = read_json(file) if file.exists() else {}

    def seconds(self, job: Job) -> float:
        """One cell from its beginning: as long as finished ones that differ in labels and seed took.

        Without one: training, validation and prediction from a probe; scoring and start-up are not in it.
        """
        alike = [other for other in self._jobs if other.kind == job.kind]
        cells = [read_cell(other.run, other.role, other.config) for other in alike]
        times = [
            cell.seconds_training + cell.seconds_predicting + cell.seconds_scoring
            for cell in cells
            if cell is not None
        ]
        return mean(times) if times else self._from_probe(job)

    def _from_probe(self, job: Job) -> float:
        train = job.config.train
        step = self.step(job)
        case = FORWARD_SHARE * step / max(sum(batch_sizes(job.config)), 1) * windows(job)
        if train.budget_s is not None:
            return train.budget_s + case * len(job.cases)
        validations = VALIDATIONS
        if train.validate_every is not None:
            validations = max(1, train.iterations // train.validate_every)
        return step * train.iterations + case * (len(job.cases) + validations * len(job.split.val))

    def step(self, job: Job) -> float:
        """Seconds of one training step."""
        if job.kind not in self._steps:
            self._steps[job.kind] = Training(job.workspace, job.split, job.plan, job.config).step_seconds()
            write_json(self._file, self._steps)
        return self._steps[job.kind]


def windows(job: Job) -> float:
    """Sliding windows of a scan of median size; larger ones than the plan's patch count as several."""
    train = job.config.train
    window = patch_sizes(job.plan, train, train.iterations).at(train.iterations - 1)
    size, spacing = job.plan.fingerprint["shape"]["median"], job.plan.fingerprint["spacing_mm"]["median"]
    shape = [
        max(round(side * before / after), patch)
        for side, before, after, patch in zip(size, spacing, job.plan.spacing_mm, window, strict=True)
    ]
    cover = tiling(shape, window, job.config.predict)
    strides = window_stride(cover["patch"], cover["stride"], cover["overlap"])
    axes = zip(shape, cover["patch"], strides, strict=True)
    count = prod(len(window_starts(max(side, patch), patch, stride)) for side, patch, stride in axes)
    return count * prod(cover["patch"]) / prod(job.plan.patch)
