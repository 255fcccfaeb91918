"""How long the command takes to answer, and training to reach its first step.

    python benchmarks/start_up.py

Answers: processor and wall-clock time of fresh processes, medians. First step: after the imports of
`semivox.train`, on six prepared phantoms, a patch of 64 x 64 x 48, the preset `la-8-lite`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Seconds, head, medians, parser_of, row

REPEATS = 5
FIRST_STEP = """
import sys, time
now = lambda: (time.process_time(), time.perf_counter())
begun = now()
import semivox
from semivox.methods import method_class
method = method_class("dual")
train = semivox.train
imported = now()
after_step = method.after_step
def note(self, step):
    if step.iteration == 0:
        print("TIMES", *(b - a for a, b in zip(begun, imported)), *(b - a for a, b in zip(imported, now())))
    return after_step(self, step)
method.after_step = note
folder = sys.argv[1]
config = {"split": {"val": 0}, "plan": {"spacing_mm": [1.5] * 3}, "train": {"iterations": 1, "workers": 0}}
where = {"work": folder + "/work", "out": folder + "/" + sys.argv[2]}
train(folder + "/raw", **where, preset="la-8-lite", labeled=3, config=config)
"""


def main() -> None:
    parser_of(__doc__).parse_args()
    head("command", "CPU", "wall")
    for command in (["--help"], ["methods"], ["methods", "dual"], ["train", "--help"], ["--version"]):
        spent = medians([answer(["-m", "semivox", *command]) for _ in range(REPEATS)])
        row(f"semivox {' '.join(command)}", f"{spent.cpu:.2f} s", f"{spent.wall:.2f} s")
    from semivox import make_phantoms

    with tempfile.TemporaryDirectory() as folder:
        make_phantoms(Path(folder) / "raw", train=6, test=1)
        for name in ("warm-up", "run"):  # the first call prepares the scans
            command = [sys.executable, "-c", FIRST_STEP, folder, name]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    times = [f"{float(word):.2f} s" for word in re.search(r"TIMES (.+)", out)[1].split()]
    row("imports of train", *times[:2])
    row("from there to the end of the first step", *times[2:])


def answer(arguments: list[str]) -> Seconds:
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(time.perf_counter() - started, cpu)


if __name__ == "__main__":
    main()
