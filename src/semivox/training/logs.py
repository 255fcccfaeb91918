"""The logged numbers of a run: a table for people and pandas, events for TensorBoard, a line for the user."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from semivox.files import write_text, writing

Value = int | float


class MetricsTable:
    """A CSV table whose rows have an `iteration`; empty where there is no value.

    Opening it drops the rows after iteration `start` (and a last line cut off by a kill), so that a resumed
    run continues the table of an uninterrupted one. A column that appears late widens the whole table.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._rows = _read_rows(path, start)
        self._columns = list(self._rows[0]) if self._rows else []
        self._rewrite()

    def write(self, row: Mapping[str, Value | str]) -> None:
        """Append one row; it is on disk when this returns."""
        texts = {
            name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in row.items()
        }
        new = [name for name in texts if name not in self._columns]
        self._rows.append(texts)
        if new:
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

    TensorBoard's own writer works in a thread, where a full disk ends in a traceback; this one does not.

    Args:
        folder: the `logs` folder of the run.
        start: iteration from which the run resumes; TensorBoard forgets what it has of later ones.
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
        tags = {
            name: f"val/{name[4:]}" if name.startswith("val_") else f"train/{name}"
            for name in row
            if name != "iteration"
        }
        values = [Summary.Value(tag=tag, simple_value=row[name]) for name, tag in tags.items()]
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
