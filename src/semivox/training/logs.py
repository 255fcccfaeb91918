"""What a run writes while it trains: a table, events for TensorBoard, a line for the user, checkpoints."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from semivox.errors import UserError
from semivox.files import write_text, writing
from semivox.methods.base import Method
from semivox.training import checkpoints
from semivox.training.checkpoints import Checkpoint
from semivox.training.fabric import evaluating, precision_of
from semivox.training.step import Stepper

Value = int | float
Validate = Callable[[Method, torch.device, int], dict[str, float]]
"""(method, device, iterations done) -> scores of whole validation cases, among them `dice`."""

VALIDATIONS, SAVES = 10, 20  # a run, where `validate_every` and `checkpoint_every` are not set


class MetricsTable:
    """A CSV table whose rows have an `iteration`; empty where there is no value.

    Opening it drops the rows after iteration `start` (and a last line cut off by a kill), so that a resumed
    run continues the table of an uninterrupted one. A column that appears late widens the whole table.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path, self._rows = path, list[dict[str, str]]()
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                whole = [row for row in csv.DictReader(file) if None not in row.values()]
            self._rows = [row for row in whole if int(row["iteration"]) <= start]
        self._columns = list(self._rows[0]) if self._rows else []
        self._rewrite()

    def write(self, row: Mapping[str, Value | str]) -> None:
        """Append one row; it is on disk when this returns."""
        texts = {name: f"{v:.6g}" if isinstance(v, float) else str(v) for name, v in row.items()}
        self._rows.append(texts)
        if new := [name for name in texts if name not in self._columns]:
            self._columns += new
            self._rewrite()
        else:
            with writing(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
                self._writer(file).writerow(texts)

    def _rewrite(self) -> None:
        buffer = io.StringIO()
        if self._columns:
            self._writer(buffer).writeheader()
            self._writer(buffer).writerows(self._rows)
        write_text(self._path, buffer.getvalue())

    def _writer(self, file: TextIO) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self._columns, restval="", lineterminator="\n")


class RunLog:
    """Writes the same rows to `metrics.csv` and to TensorBoard.

    TensorBoard's own writer works in a thread, where a full disk ends in a traceback, and puts the name of
    the machine into that of its file; this one does not. It forgets what it has of iterations after `start`.
    """

    def __init__(self, folder: Path, start: int) -> None:
        events = folder / "tensorboard"
        self._table = MetricsTable(folder / "metrics.csv", start)
        self._path = events / f"events.out.tfevents.{time.time():010.0f}.{start:09d}"
        with writing(self._path):
            events.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(self._path.open("ab"))
        self._event(file_version="brain.Event:2")
        self._event(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, row: Mapping[str, Value]) -> None:
        """Write one row; it must have an `iteration`. Columns `val_x` appear as `val/x` in TensorBoard."""
        self._table.write(row)
        values = []
        for name, value in row.items():
            tag = f"val/{name[4:]}" if name.startswith("val_") else f"train/{name}"
            values.append(Summary.Value(tag=tag, simple_value=value))
        self._event(step=int(row["iteration"]), summary=Summary(value=values))

    def picture(self, iteration: int, png: bytes) -> None:
        """Show a picture of a validation case in TensorBoard."""
        image = Summary.Image(encoded_image_string=png, colorspace=3)
        value = Summary.Value(tag="val/reference_and_prediction", image=image)
        self._event(step=iteration, summary=Summary(value=[value]))

    def _event(self, **content: Any) -> None:
        with writing(self._path):
            self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    def flush(self) -> None:
        """Bring the TensorBoard events to disk."""
        with writing(self._path):
            self._records.flush()

    def close(self) -> None:
        """Finish the TensorBoard events; the table needs no closing."""
        with writing(self._path):
            self._records.close()


def interval(setting: int | None, total: int, times: int) -> int:
    """Return `setting`, or the interval that gives at most `times` events in `total` iterations."""
    return setting or -(-total // times)


def due(done: int, every: int, total: int) -> bool:
    """Whether something that happens at every `every`-th iteration, and at the last, happens after `done`."""
    return done % every == 0 or done == total


class Recorder:
    """Reads the losses, validates, writes the log and the checkpoints; only the first process does so.

    Between the iterations at which one of these is due nothing is read from the device.
    It resumes from `state`, with `best`, the iteration and the scores of the best checkpoint so far.
    """

    def __init__(
        self, stepper: Stepper, folder: Path, state: Checkpoint, best: Any, validate: Validate | None
    ) -> None:
        self._stepper, self._folder, self._validate = stepper, folder, validate
        self.best: dict[str, Any] | None = best
        self._log = RunLog(folder / "logs", state.iteration) if stepper.fabric.is_global_zero else None
        self._began = time.perf_counter() - state.seconds
        self.shown: tuple[str, dict[str, Value]] = ("", {})  # a line about the newest losses, and its values
        self._scores: dict[str, Value] = {}  # the newest columns of a validation
        self._config = config = stepper.config
        self._validate_every = interval(config.validate_every, config.iterations, VALIDATIONS)
        self._save_every = interval(config.checkpoint_every, config.iterations, SAVES)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run, resumed parts included."""
        return time.perf_counter() - self._began

    def after(self, done: int, *, stop: bool) -> None:
        """Do what is due after `done` steps; if the run is about to `stop`, save its state."""
        total, log = self._config.iterations, self._log
        logs = due(done, self._config.log_every, total) or done == 1
        validates = self._validate is not None and due(done, self._validate_every, total)
        ends = any(done == stage.stop for stage in self._stepper.stages)
        saves = due(done, self._save_every, total) or stop or ends
        if log is None or not (logs or validates or saves):
            return
        losses, notes, broken = self._stepper.watch.read()
        row = self._row(done, losses, notes)
        if broken:
            log.write(row)
            terms = [f"{name} (iteration {at})" for name, at in sorted(broken.items(), key=lambda x: x[1])]
            what = f"The loss is not finite at iteration {min(broken.values())} of {total}"
            raise _diverged(what, ", ".join(terms))
        if validates or saves:
            self._require_finite_weights(done)
        if validates:
            self._scores = self._validated(done)
            row |= self._scores
            if png := getattr(self._validate, "picture", None):
                log.picture(done, png)
        if logs or validates:
            log.write(row)
            self._show({"loss": row["loss"], **losses})
        if saves:
            log.flush()
            self._save(done)

    def _row(self, done: int, losses: dict[str, float], notes: dict[str, float]) -> dict[str, Value]:
        row: dict[str, Value] = {"iteration": done, "seconds": round(self.seconds, 3)}
        row |= {"lr": self._stepper.lr(done - 1), "loss": sum(losses.values())}
        if self._config.budget_s is not None:
            row["forecast_s"] = round(self.seconds * self._config.iterations / done, 1)
        for name, value in (*losses.items(), *notes.items()):
            row[name if name not in row else f"{name}_"] = value
        return row

    def _require_finite_weights(self, done: int) -> None:
        parameters = [parameter.detach() for parameter in self._stepper.method.parameters()]
        if not bool(torch.nn.utils.get_total_norm(parameters).isfinite()):
            found = "NaN or infinity in the parameters while every loss term was finite"
            raise _diverged(f"The weights are not finite after iteration {done}", found)

    def _show(self, values: dict[str, Value]) -> None:
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        if (dice := self._scores.get("val_dice")) is not None:
            text, values = f"validation Dice {dice:.3f}  {text}", values | {"val_dice": dice}
        self.shown = text, values

    def _validated(self, done: int) -> dict[str, Value]:
        """Score the weights, keep them if their Dice is the highest so far, return the columns."""
        assert self._validate is not None
        method, fabric = self._stepper.averaged, self._stepper.fabric
        with evaluating(method, fabric):
            found = self._validate(method, fabric.device, done)
        scores = {name: float(value) for name, value in found.items()}
        dice = scores.get("dice", math.nan)
        if not math.isnan(dice) and (self.best is None or dice > self.best["dice"]):
            self.best = {"iteration": done, **scores}
            best = Checkpoint(done, dict(method.state_dict()), scores=scores)
            checkpoints.save(checkpoints.best_path(self._folder), best)
        return {f"val_{name}": value for name, value in scores.items()}

    def _save(self, done: int) -> None:
        fabric = self._stepper.fabric
        scaler, precision = dict(fabric.strategy.precision.state_dict()), precision_of(fabric)
        state = {**self._stepper.state(), "scaler": scaler, "precision": precision}
        checkpoint = Checkpoint(done, seconds=self.seconds, **state)
        checkpoints.save(checkpoints.last_path(self._folder), checkpoint)


def _diverged(what: str, found: str) -> UserError:
    expected = "finite numbers; training stopped and the last checkpoint holds the weights from before"
    do = "a smaller --set train.lr, or --set train.precision=32; then start over with --fresh"
    return UserError(what, found, expected, do)
