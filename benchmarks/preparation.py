"""How busy `semivox prepare` keeps two cores, from the processor time of all its processes.

    python benchmarks/preparation.py DATA --cases 20

Linux only. On a machine with other work the wall time says little. What counts is how much of the processor
time the workers spent (they share the cases evenly) and how much the others, while the workers wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from semivox.datasets.dataset import open_dataset
from semivox.files import write_json
from timing import parser_of

_TICK = os.sysconf("SC_CLK_TCK")
_LOOK_S = 0.25  # looking takes time from the workers


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--spacing", type=float, default=1.0, help="mm; other than the scans'")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = write_split(arguments.data, folder / "few.json", arguments.cases)
        command = [sys.executable, "-m", "semivox", "prepare", "-d", str(arguments.data), "--workers", "2"]
        options = ["--work", str(folder / "work"), "--split-file", str(split)]
        wall, together, alone = watch(
            [*command, *options, "--set", f"plan.spacing_mm={[arguments.spacing] * 3}"]
        )
    cases, free = arguments.cases, alone + together / 2
    print(f"{cases} cases: wall {wall:.1f} s; CPU {together:.1f} s in workers, {alone:.1f} s in others")
    print(f"of two cores {(together + alone) / 2 / wall:.0%} used")
    print(f"with two free cores: {free:.1f} s, {busy(together, alone):.0%} busy;", end=" ")
    print(f"at 80 cases {busy(together * 80 / cases, alone):.0%}")


def busy(together: float, alone: float) -> float:
    """Used share of two cores, if one process works alone first and then two share the rest."""
    return (together + alone) / (2 * (alone + together / 2))


def write_split(data: Path, file: Path, cases: int) -> Path:
    """Write a split that has only so many cases."""
    names = [case.name for case in open_dataset(data).pool("train") if case.label is not None]
    write_json(file, [{"train": names[:cases], "val": []}])
    return file


def watch(command: list[str]) -> tuple[float, float, float]:
    """Run a command; wall time, and processor seconds of its worker processes and of the others.

    Workers are the descendants without children: the command starts a server, and that the workers.
    """
    started, used, parents = time.perf_counter(), dict[int, float](), set[int]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        parents.add(process.pid)
        while process.poll() is None:
            for pid, (parent, seconds) in processes().items():
                if pid == process.pid or parent in used:
                    used[pid] = seconds
                if parent in used:
                    parents.add(parent)
            time.sleep(_LOOK_S)
    if process.returncode:
        raise SystemExit(process.returncode)
    alone = sum(seconds for pid, seconds in used.items() if pid in parents)
    return time.perf_counter() - started, sum(used.values()) - alone, alone


def processes() -> dict[int, tuple[int, float]]:
    """Parent and processor seconds of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(path.parent.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICK
    return found


if __name__ == "__main__":
    main()
