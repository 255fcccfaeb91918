"""How busy `semivox prepare` keeps two cores: processor time of all its processes, sampled, and what ran alone.

    python benchmarks/preparation.py DATA --cases 8

Linux only. On a machine with other work the wall time says little; what counts then is the share of the
processor time that the two workers did, and how evenly.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from semivox.data.dataset import open_dataset, write_index
from semivox.files import write_json

_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument(
        "--spacing", type=float, default=1.0, help="mm; other than the scans': they are resampled"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = workspace(arguments.data, Path(name), arguments.cases)
        settings = [
            "--set",
            f"plan.spacing_mm={[arguments.spacing] * 3}",
            "--split-file",
            str(work / "few.json"),
        ]
        command = [sys.executable, "-m", "semivox", "prepare", "-d", str(work), "--workers", "2", *settings]
        wall, used = watch(command)
    total = sum(used.values())
    workers = sorted(used.values())[-2:]
    print(
        f"{arguments.cases} cases: wall {wall:.1f} s, CPU {total:.1f} s = {total / wall / 2:.0%} of two cores"
    )
    print(
        f"the two workers: {workers[0]:.1f} and {workers[1]:.1f} s = {sum(workers) / total:.0%} of the CPU time"
    )
    alone = total - 2 * workers[0]
    print(f"alone (start, end, the longer worker's surplus): {alone:.1f} s")
    print(f"with both cores free: {total / (2 * (alone + workers[0])):.0%} busy")


def workspace(data: Path, work: Path, cases: int) -> Path:
    """Make a workspace whose split has only so many cases."""
    dataset = open_dataset(data)
    write_index(dataset, work)
    names = [case.name for case in dataset.pool("train") if case.label is not None][:cases]
    write_json(work / "few.json", [{"train": names, "val": []}])
    return work


def watch(command: list[str]) -> tuple[float, dict[int, float]]:
    """Run a command; wall time, and processor seconds of each process that descends from it."""
    started, used = time.perf_counter(), dict[int, float]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        family = {process.pid}
        while process.poll() is None:
            for pid, (parent, seconds) in processes().items():
                if pid in family or parent in family:
                    family.add(pid)
                    used[pid] = seconds
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - started, used


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
