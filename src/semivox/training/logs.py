"""What a run writes while it trains: a table, events for TensorBoard, a line for the user, checkpoints."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from semivox.files import write_text, writing
from semivox.methods.base import Method
from semivox.training import checkpoints
from semivox.training.checkpoints import Checkpoint
from semivox.training.fabric import Precision, evaluating
from semivox.training.failures import not_finite, require_finite
from semivox.training.step import Stepper, precision_of

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
        self._path, self._rows = path, _read_rows(path, start)
        self._columns = list(self._rows[0]) if self._rows else []
        self._rewrite()

    def write(self, row: Mapping[str, Value | str]) -> None:
        """Append one row; it is on disk when this returns."""
        texts = {
            name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in row.items()
        }
        self._rows.append(texts)
        if new := [name for name in texts if name not in self._columns]:
            self._columns += new
            self._rewrite()
            return
        with writing(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, restval="", lineterminator="\n").writerow(texts)

    def _rewrite(self) -> None:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, restval="", lineterminator="\n")
        if self._columns:
            writer.writeheader()
            writer.writerows(self._rows)
        write_text(self._path, buffer.getvalue())


def _read_rows(path: Path, start: int) -> list[dict[str, str]]:
    """Return the whole rows of `path` up to iteration `start`."""
    if start < 0 or not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, restval=None))
    whole = [row for row in rows if (row.get("iteration") or "").isdecimal() and None not in row.values()]
    return [row for row in whole if int(row["iteration"]) <= start]


class RunLog:
    """Writes the same rows to `metrics.csv` and to TensorBoard.

    TensorBoard's own writer works in a thread, where a full disk ends in a traceback; this one does not. It
    forgets what it has of iterations after `start`.
    """

    def __init__(self, folder: Path, start: int) -> None:
        events = folder / "tensorboard"
        self._table = MetricsTable(folder / "metrics.csv", start)
        self._path = events / f"events.out.tfevents.{time.time():010.0f}.{start:09d}"
        with writing(self._path):
            events.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        self._records = RecordWriter(self._file)
        self._row: Mapping[str, Value] = {}
        self._dice: Value | None = None
        self._event(Event(file_version="brain.Event:2"))
        self._event(Event(step=start + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, row: Mapping[str, Value]) -> None:
        """Write one row; it must have an `iteration`. Columns `val_x` appear as `val/x` in TensorBoard."""
        self._table.write(row)
        self._row, self._dice = row, row.get("val_dice", self._dice)
        values = [
            Summary.Value(
                tag=f"val/{name[4:]}" if name.startswith("val_") else f"train/{name}", simple_value=value
            )
            for name, value in row.items()
            if name != "iteration"
        ]
        self._event(Event(step=int(row["iteration"]), summary=Summary(value=values)))

    def shown(self, losses: Mapping[str, float]) -> tuple[str, dict[str, Value]]:
        """Return a line about the row written last, and its values: the losses and the newest Dice."""
        values: dict[str, Value] = {"loss": self._row["loss"], **losses}
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        if self._dice is None:
            return text, values
        return f"validation Dice {self._dice:.3f}  {text}", values | {"val_dice": self._dice}

    def picture(self, iteration: int, png: bytes | None) -> None:
        """Show a picture of a validation case, if there is one, in TensorBoard."""
        if png is None:
            return
        image = Summary.Image(encoded_image_string=png, colorspace=3)
        value = Summary.Value(tag="val/reference_and_prediction", image=image)
        self._event(Event(step=iteration, summary=Summary(value=[value])))

    def _event(self, event: Event) -> None:
        event.wall_time = time.time()
        with writing(self._path):
            self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Bring the TensorBoard events to disk."""
        with writing(self._path):
            self._file.flush()

    def close(self) -> None:
        """Finish the TensorBoard events; the table needs no closing."""
        with writing(self._path):
            self._file.close()


def interval(setting: int | None, total: int, times: int) -> int:
    """Return `setting`, or the interval that gives at most `times` events in `total` iterations."""
    return setting or -(-total // times)


def due(done: int, every: int, total: int) -> bool:
    """Whether something that happens at every `every`-th iteration, and at the last, happens after `done`."""
    return done % every == 0 or done == total


class Recorder:
    """Reads the losses, validates, writes the log and the checkpoints; only the first process does so.

    Between the iterations at which one of these is due nothing is read from the device.

    Args:
        stepper, folder: what is trained, and where.
        state, best: from which the run resumes; `iteration` and scores of the best checkpoint so far.
        validate: see `fit`.
    """

    def __init__(
        self,
        stepper: Stepper,
        folder: Path,
        state: Checkpoint,
        best: dict[str, Any] | None,
        validate: Validate | None,
    ) -> None:
        self._stepper, self._folder, self.best, self._validate = stepper, folder, best, validate
        self._log = RunLog(folder / "logs", state.iteration) if stepper.fabric.is_global_zero else None
        self._began = time.perf_counter() - state.seconds
        self.shown: tuple[str, dict[str, Value]] = ("", {})
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
            raise not_finite(broken, total)
        if validates or saves:
            require_finite(self._stepper.method, done)
        if validates:
            row |= self._validated(done)
            log.picture(done, getattr(self._validate, "picture", None))
        if logs or validates:
            log.write(row)
            self.shown = log.shown(losses)
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
        checkpoint = Checkpoint(
            done, **self._stepper.state(), seconds=self.seconds,
            scaler=dict(fabric.strategy.precision.state_dict()),
            precision=cast("Precision", precision_of(fabric)),
        )  # fmt: skip
        checkpoints.save(checkpoints.last_path(self._folder), checkpoint)
