"""What happens between steps: logging, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch

from semivox.config import TrainConfig
from semivox.methods.base import Method, fixed
from semivox.training import checkpoints
from semivox.training.checkpoints import Checkpoint
from semivox.training.failures import not_finite
from semivox.training.logs import RunLog, Value
from semivox.training.module import TrainingModule
from semivox.training.precision import LightningPrecision
from semivox.training.progress import Display
from semivox.training.watch import Reading

Validate = Callable[[Method, torch.device, int], dict[str, float]]  # after so many iterations


def interval(setting: int | None, total: int, times: int) -> int:
    """Return `setting`, or the interval that gives at most `times` events in `total` iterations."""
    return setting or -(-total // times)


def due(done: int, every: int, total: int) -> bool:
    """Whether something that happens at every `every`-th iteration, and at the last, happens after `done`."""
    return done % every == 0 or done == total


@contextmanager
def evaluating(method: Method) -> Iterator[None]:
    """Switch to evaluation mode without gradients; afterwards every module has the mode it had before."""
    with fixed(method), torch.no_grad():
        yield


class Recorder(pl.Callback):
    """Reads the losses, validates, writes the log and the checkpoints.

    Between the iterations at which one of these is due nothing is read from the device.

    Args:
        config: settings of the run.
        folder: the run folder.
        run: from `describe_run`, stored in the checkpoints.
        validate: gives scores of whole validation cases, among them `dice`; None: no validation.
        seconds: time spent before, by the run that goes on.
        best: the best checkpoint so far, if there is one.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        run: dict[str, Any],
        *,
        validate: Validate | None,
        log: RunLog,
        display: Display,
        seconds: float,
        best: dict[str, Any] | None,
    ) -> None:
        self.best, self.interrupted = best, False
        self._config, self._folder, self._run, self._validate = config, folder, run, validate
        self._log, self._display, self._before = log, display, seconds
        self._began = time.perf_counter()
        total = config.iterations
        self._validate_every = interval(config.validate_every, total, 10)
        self._save_every = interval(config.checkpoint_every, total, 20)

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run, resumed parts included."""
        return self._before + time.perf_counter() - self._began

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do what is due after this step."""
        assert isinstance(pl_module, TrainingModule)
        total, done = self._config.iterations, pl_module.start + batch_idx + 1
        logs = due(done, self._config.log_every, total) or done == 1
        validates = self._validate is not None and due(done, self._validate_every, total)
        saves = due(done, self._save_every, total) or trainer.received_sigterm
        if trainer.is_global_zero and (logs or validates or saves):
            reading = pl_module.watch.read()
            row = self._row(done, pl_module.lr(done - 1), reading)
            if reading.not_finite:
                self._log.write(row)
                raise not_finite(reading.not_finite, total)
            if validates or saves:
                checkpoints.require_finite(pl_module.method, done)
            if validates:
                row |= self._validated(trainer, pl_module, done)
            if logs or validates:
                self._log.write(row)
                self._display.losses(done, {"loss": row["loss"], **reading.losses})
            if saves:
                self._save(trainer, pl_module, done)
        self._display.advance(done)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Remember that the user pressed Ctrl-C: Lightning turns it into an exit."""
        self.interrupted = isinstance(exception, KeyboardInterrupt)

    def _row(self, done: int, lr: float, reading: Reading) -> dict[str, Value]:
        row: dict[str, Value] = {"iteration": done, "seconds": round(self.seconds, 3), "lr": lr}
        row["loss"] = sum(reading.losses.values())
        if self._config.budget_s is not None:
            row["forecast_s"] = round(self.seconds * self._config.iterations / done, 1)
        for name, value in (*reading.losses.items(), *reading.notes.items()):
            row[name if name not in row else f"{name}_"] = value
        return row

    def _validated(self, trainer: pl.Trainer, module: TrainingModule, done: int) -> dict[str, Value]:
        """Score the weights, keep them if their Dice is the highest so far, return the columns."""
        assert self._validate is not None
        with evaluating(module.method), trainer.precision_plugin.forward_context():
            found = self._validate(module.method, module.device, done)
        scores = {name: float(value) for name, value in found.items()}
        dice = scores.get("dice", float("nan"))
        if not math.isnan(dice) and (self.best is None or dice > self.best["dice"]):
            self.best = {"iteration": done, **scores}
            best = Checkpoint(done, dict(module.method.state_dict()), run=self._run, scores=scores)
            checkpoints.save(checkpoints.best_path(self._folder), best)
        return {f"val_{name}": value for name, value in scores.items()}

    def _save(self, trainer: pl.Trainer, module: TrainingModule, done: int) -> None:
        self._log.flush()
        checkpoint = Checkpoint(
            done,
            dict(module.method.state_dict()),
            momentum=module.momentum(),
            critic=module.critic.state(),
            scaler=dict(trainer.precision_plugin.state_dict()),
            precision=cast("LightningPrecision", trainer.precision_plugin.precision),
            seconds=self.seconds,
            run=self._run,
        )
        checkpoints.save(checkpoints.last_path(self._folder), checkpoint)
