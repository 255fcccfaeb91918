"""`train --diagnose`: pseudo-labels beside labels that training does not see, and gradients of the losses.

Everything is measured on copies, so that the run stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semivox.datasets.dataset import Dataset
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.io.volume import Volume, read_label
from semivox.methods.base import Batch, Method, PseudoLabel
from semivox.patches.sampling import cut, random_start, start_around
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.resample import Grid, label_to_working_grid
from semivox.preprocessing.store import Store, sample_foreground
from semivox.preprocessing.workspace import Workspace
from semivox.training.fabric import autocast
from semivox.training.logs import MetricsTable, interval
from semivox.training.pseudo_quality import PseudoQuality, Row
from semivox.training.step import Stepper

Draw = Callable[[Path, str], None]
"""(table, subtitle): draw the table beside it."""

TIMES = 25  # a run, when `diagnose_every` is not set
PATCHES = 8
NOTICE = "labels of unlabeled cases were opened for diagnosis, never for training"
_REDRAW_S = 60.0
_CANDIDATES = 10_000  # foreground voxels that a patch may be centred on


@dataclass
class Diagnosis:
    """Writes a table of a run: what `measure` finds, and `gradient` norms on the batch of the next step.

    Everything runs on copies of the method with torch's generators restored, so that the run continues as if
    nothing had happened. A row's iteration is the number of steps done before; the last has no gradients.
    """

    batches: Sequence[tuple[Tensor, Tensor]]  # patches, as many as a step's, with their hidden labels
    class_names: Sequence[str]
    path: Path  # the table to write (CSV)
    draw: Callable[[Path], None]  # a picture of the table; at most once a minute, and at the end

    def begin(self, start: int) -> None:
        """Open the table; rows from iteration `start` on, at which the run resumes, are made anew."""
        self._table, self._drawn = MetricsTable(self.path, start - 1), time.perf_counter()

    def look(self, stepper: Stepper, done: int, *batch: Batch) -> None:
        """Diagnose the weights after `done` steps, if due: with the next batch, or the last ones without."""
        total, device = stepper.config.iterations, stepper.fabric.device
        every = interval(stepper.config.diagnose_every, total, TIMES)
        if done % every if batch else done < total:
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            stepper.begin(done)
            with torch.no_grad(), autocast(stepper.fabric):
                rows = list(self.measure(deepcopy(stepper.method), device))
            if batch:
                rows += _gradients(stepper, done, *batch)
        for measure, of, part, value in rows:
            self._table.write({"iteration": done, "measure": measure, "of": of, "part": part, "value": value})
        if done == total or time.perf_counter() - self._drawn > _REDRAW_S:
            self.draw(self.path)
            self._drawn = time.perf_counter()

    def measure(self, method: Method, device: torch.device) -> Iterable[Row]:
        """Compare the pseudo-labels of a copy of the method, in training mode, with the hidden labels."""
        quality = PseudoQuality(self.class_names)
        method.eval()
        for image, truth in self.batches:
            quality.add({"prediction": PseudoLabel.of(method.predict(image.to(device)))}, truth.to(device))
        method.train()
        for image, truth in self.batches:
            quality.add(method.pseudo_labels(image.to(device)), truth.to(device))
        return quality.findings()


def _gradients(stepper: Stepper, done: int, labeled: Batch, unlabeled: Batch) -> Iterator[Row]:
    method, scaler = deepcopy(stepper.method), getattr(stepper.fabric.strategy.precision, "scaler", None)
    step = stepper.begin(done)  # the random numbers of the step itself
    with autocast(stepper.fabric):
        terms = method.losses(labeled, unlabeled, step)
    yield from gradient_norms(method, terms, scale=scaler.get_scale() if scaler is not None else 1.0)
    if method.critic_parameters():
        with stepper.critic_autocast():
            terms = method.critic_losses(labeled, unlabeled, step)
        yield from gradient_norms(method, terms, critic=True)


def gradient_norms(
    method: Method, terms: Mapping[str, Tensor], *, critic: bool = False, scale: float = 1.0
) -> Iterator[Row]:
    """Compute the L2 norm of the gradient of each loss term, and of their "sum", on each child module.

    Modules that a term does not reach are left out. No `.grad` is touched. With `critic`, the modules are
    those that the critic's optimiser trains. `scale` multiplies the losses during the backward pass, against
    underflow in half precision.
    """
    critics = {id(parameter) for group in method.critic_parameters() for parameter in group["params"]}
    owners: dict[str, list[Tensor]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and (id(parameter) in critics) == critic:
            owners.setdefault(name.partition(".")[0] if "." in name else "method", []).append(parameter)
    attached = {name: term.float() for name, term in terms.items() if term.requires_grad}
    if len(attached) > 1:
        attached["sum"] = torch.stack(list(attached.values())).sum()
    parameters = [parameter for own in owners.values() for parameter in own]
    for name, term in attached.items():
        found = iter(torch.autograd.grad(term * scale, parameters, retain_graph=True, allow_unused=True))
        for owner, own in owners.items():
            reached = [gradient for gradient in (next(found) for _ in own) if gradient is not None]
            if reached:
                yield "gradient", name, owner, float(torch.nn.utils.get_total_norm(reached)) / scale


def make_diagnosis(
    workspace: Workspace, split: Split, plan: Plan, path: Path, *, batch: int, draw: Draw
) -> Diagnosis:
    """Build what `fit` diagnoses with; opens the labels of a handful of unlabeled cases, in memory only.

    `batch` patches go through the networks at once: normalisation sees as many as in training.

    Raises:
        UserError: no unlabeled case has a label file, or one of them cannot be used.
    """
    count = batch * max(1, round(PATCHES / batch))
    cases, image, label = read_hidden_patches(workspace.dataset, split, plan, workspace.store, count)
    batches = list(zip(torch.split(image, batch), torch.split(label, batch), strict=True))
    of = "1 unlabeled case" if len(set(cases)) == 1 else f"{len(set(cases))} unlabeled cases"
    subtitle = f"{count} patches of {of}; {NOTICE}"
    return Diagnosis(batches, plan.class_names, path, lambda table: draw(table, subtitle))


class HiddenPatches(NamedTuple):
    """Fixed patches of unlabeled cases with the labels that training does not see."""

    cases: tuple[str, ...]  # the case of each patch
    image: Tensor  # (N, C, X, Y, Z) float32
    label: Tensor  # (N, X, Y, Z) int64 class indices, `IGNORE` where there is none


def require_hidden_labels(dataset: Dataset, split: Split) -> tuple[str, ...]:
    """Return the unlabeled cases that have a label file, in the order of the split; none is opened."""
    names = tuple(name for name in split.unlabeled if dataset.case(name).label is not None)
    if not names:
        what = "There is nothing to diagnose with: no unlabeled case has a label file"
        do = "train without --diagnose, or hide some labels from training with --labeled N"
        raise UserError(what, f"{len(split.unlabeled)} unlabeled cases", do=do)
    return names


def read_hidden_patches(
    dataset: Dataset, split: Split, plan: Plan, store: Store, count: int
) -> HiddenPatches:
    """Cut `count` patches from unlabeled cases that have a label file, always the same ones.

    The cases are spread evenly over the list, each with as many patches as the others (or one more). Half
    of the patches lie anywhere, as in training, half are centred on a foreground voxel, all classes alike.
    Nothing is written to the store.
    """
    names = require_hidden_labels(dataset, split)
    cases = min(count, len(names))
    chosen = [names[index * len(names) // cases] for index in range(cases)]
    labels = {name: _label_on_grid(dataset, plan, store, name) for name in chosen}
    order = [chosen[index % cases] for index in range(count)]
    rng = np.random.default_rng(0)
    images, truths = [], []
    for index, name in enumerate(order):
        label = labels[name]
        start = random_start(label.shape, plan.patch, rng)
        foreground = sample_foreground(label, _CANDIDATES)
        if index % 2 and len(foreground):
            start = start_around(foreground[int(rng.integers(len(foreground)))], label.shape, plan.patch)
        images.append(cut(store.image(name), start, plan.patch).astype(np.float32, copy=False))
        truths.append(cut(label, start, plan.patch))
    image, truth = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(truths)).long()
    return HiddenPatches(tuple(order), image, truth)


def _label_on_grid(dataset: Dataset, plan: Plan, store: Store, name: str) -> NDArray[np.uint8]:
    path = dataset.case(name).label
    assert path is not None
    grid = Grid.from_dict(store.meta(name)["grid"])
    scan = Volume(np.broadcast_to(np.float32(0), grid.source_shape), grid.source_affine)  # only its geometry
    trust = plan.trust_image_geometry
    label = read_label(path, plan.class_values, scan, plan.ignore_value, trust_image_geometry=trust)
    return label_to_working_grid(label.array, grid)
