"""What the networks and the losses do during a run, measured on copies so that the run stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from semivox.config import TrainConfig
from semivox.methods.base import Method
from semivox.training.callbacks import interval
from semivox.training.critic import critic_autocast
from semivox.training.logs import MetricsTable
from semivox.training.module import TrainingModule, streams

Row = tuple[str, str, str, float]
"""What was measured, of which label or loss, of which class or network, and the number."""

TIMES = 25  # a run, when `diagnose_every` is not set
_REDRAW_S = 60.0


@dataclass(frozen=True)
class Diagnosis:
    """What `fit` is handed to diagnose with.

    Attributes:
        measure: gives rows about a copy of the method, in training mode and under the run's precision.
        draw: makes a picture of the table, whose path it gets; at most once a minute, and at the end.
        path: the table to write (CSV).
    """

    measure: Callable[[Method, torch.device], Iterable[Row]]
    draw: Callable[[Path], None]
    path: Path


class Diagnoser(pl.Callback):
    """Writes the table: rows of `Diagnosis.measure`, and `gradient` norms on the batch of the next step.

    Everything runs on copies of the method with torch's generators restored, so that the run goes on as if
    nothing had happened. A row's iteration is the number of steps done before; the last has no gradients.

    Args:
        diagnosis: what to measure, and where to write.
        config: settings of the run.
        start: iteration from which the run goes on; rows from there on are dropped and made anew.
    """

    def __init__(self, diagnosis: Diagnosis, config: TrainConfig, start: int) -> None:
        self._diagnosis, self._total = diagnosis, config.iterations
        self._every = interval(config.diagnose_every, config.iterations, TIMES)
        self._table = MetricsTable(diagnosis.path, start - 1)
        self._drawn = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Diagnose the weights before this step."""
        assert isinstance(pl_module, TrainingModule)
        done = pl_module.start + batch_idx
        if trainer.is_global_zero and done % self._every == 0:
            self._diagnose(trainer, pl_module, done, batch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Diagnose the last weights."""
        assert isinstance(pl_module, TrainingModule)
        if trainer.is_global_zero and pl_module.start + batch_idx + 1 == self._total:
            self._diagnose(trainer, pl_module, self._total, None)

    def _diagnose(
        self, trainer: pl.Trainer, module: TrainingModule, done: int, batch: Mapping[str, Any] | None
    ) -> None:
        device = module.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            module.begin(done)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                rows = list(self._diagnosis.measure(deepcopy(module.method), device))
            if batch is not None:
                rows += self._gradients(trainer, module, done, batch)
        for measure, of, part, value in rows:
            self._table.write({"iteration": done, "measure": measure, "of": of, "part": part, "value": value})
        if done == self._total or time.perf_counter() - self._drawn > _REDRAW_S:
            self._diagnosis.draw(self._diagnosis.path)
            self._drawn = time.perf_counter()

    def _gradients(
        self, trainer: pl.Trainer, module: TrainingModule, done: int, batch: Mapping[str, Any]
    ) -> Iterator[Row]:
        method, scaler = deepcopy(module.method), getattr(trainer.precision_plugin, "scaler", None)
        step = module.begin(done)  # the random numbers of the step itself
        labeled, unlabeled = streams(batch)
        with trainer.precision_plugin.forward_context():
            terms = method.losses(labeled, unlabeled, step)
        yield from gradient_norms(method, terms, scale=scaler.get_scale() if scaler is not None else 1.0)
        if method.critic_parameters():
            with critic_autocast(trainer.precision_plugin):
                terms = method.critic_losses(labeled, unlabeled, step)
            yield from gradient_norms(method, terms, critic=True)


def gradient_norms(
    method: Method, terms: Mapping[str, Tensor], *, critic: bool = False, scale: float = 1.0
) -> Iterator[Row]:
    """L2 norm of the gradient of each loss term, and of their "sum", on each child module it reaches.

    No `.grad` is touched.

    Args:
        method: what the terms were computed with.
        terms: from `method.losses`, or from `method.critic_losses`.
        critic: look at what the critic's optimiser trains, instead of what the networks' does.
        scale: factor on the losses during the backward pass, against underflow in half precision.
    """
    critics = {id(parameter) for group in method.critic_parameters() for parameter in group["params"]}
    named = [
        (name, parameter)
        for name, parameter in method.named_parameters()
        if parameter.requires_grad and (id(parameter) in critics) == critic
    ]
    owners = [name.partition(".")[0] if "." in name else "method" for name, _ in named]
    parameters = [parameter for _, parameter in named]
    attached = {name: term.float() for name, term in terms.items() if term.requires_grad}
    if len(attached) > 1:
        attached["sum"] = torch.stack(list(attached.values())).sum()
    for name, term in attached.items():
        found = torch.autograd.grad(term * scale, parameters, retain_graph=True, allow_unused=True)
        for owner in dict.fromkeys(owners):
            reached = [
                gradient
                for gradient, belongs in zip(found, owners, strict=True)
                if gradient is not None and belongs == owner
            ]
            if reached:
                yield "gradient", name, owner, float(torch.nn.utils.get_total_norm(reached)) / scale
