"""The logged numbers of a run: a table for people and pandas, events for TensorBoard."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from semivox.files import write_text

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
        with self._path.open("a", encoding="utf-8", newline="") as file:
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

    Args:
        folder: the `logs` folder of the run.
        start: iteration from which the run goes on; 0 clears what is there.
    """

    def __init__(self, folder: Path, start: int) -> None:
        if start == 0:
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._table = MetricsTable(folder / "metrics.csv", start)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def write(self, row: Mapping[str, Value]) -> None:
        """Write one row; it must have an `iteration`. Columns `val_x` appear as `val/x` in TensorBoard."""
        self._table.write(row)
        for name, value in row.items():
            if name != "iteration":
                tag = f"val/{name[4:]}" if name.startswith("val_") else f"train/{name}"
                self._events.add_scalar(tag, value, int(row["iteration"]))

    def flush(self) -> None:
        """Bring the TensorBoard events to disk."""
        self._events.flush()

    def close(self) -> None:
        """Finish the TensorBoard events; the table needs no closing."""
        self._events.close()
