"""How long the command takes to answer, and training to reach its first step.

    python benchmarks/start_up.py

Answers: processor and wall-clock time of fresh processes, medians. First step: after the imports of
`semivox.training.train`, on six prepared phantoms, a patch of 64 x 64 x 48, the preset `la-8-lite`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import Seconds, medians

REPEATS = 5
FIRST_STEP = """
import sys, time
from pathlib import Path
begun = time.process_time(), time.perf_counter()
from semivox.config import load_config
from semivox.training.module import TrainingModule
from semivox.preprocessing.ready import prepare
from semivox.training.train import train
imported = time.process_time(), time.perf_counter()
config = load_config(
    preset="la-8-lite", split={"labeled": 3, "val": 0}, train={"iterations": 3, "workers": 0},
    plan={"spacing_mm": [1.5, 1.5, 1.5]},
)
if sys.argv[2] == "prepare":
    prepare(sys.argv[1] + "/raw", config=config, work=Path(sys.argv[1], "work"), workers=0)
    sys.exit()
begin = TrainingModule.begin
def note(module, iteration):
    if iteration == 1:
        now = time.process_time(), time.perf_counter()
        print(*(b - a for a, b in zip(begun, imported)), *(b - a for a, b in zip(imported, now)))
    return begin(module, iteration)
TrainingModule.begin = note
train(sys.argv[1] + "/work", config=config, out=sys.argv[1] + "/run", fresh=True)
"""


def main() -> None:
    print("| command | CPU | wall |\n|---|---|---|")
    for command in (["--help"], ["methods"], ["methods", "dual"], ["train", "--help"], ["--version"]):
        spent = medians([answer(["-m", "semivox", *command]) for _ in range(REPEATS)])
        print(f"| semivox {' '.join(command)} | {spent.cpu:.2f} s | {spent.wall:.2f} s |", flush=True)
    from semivox.datasets.phantom_set import make_phantoms

    with tempfile.TemporaryDirectory() as folder:
        make_phantoms(Path(folder) / "raw", train=6, test=1)
        subprocess.run([sys.executable, "-c", FIRST_STEP, folder, "prepare"], check=True)
        command = [sys.executable, "-c", FIRST_STEP, folder, "train"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    imports_cpu, imports_wall, step_cpu, step_wall = map(float, out.split())
    print(f"| imports of train | {imports_cpu:.2f} s | {imports_wall:.2f} s |")
    print(f"| from there to the end of the first step | {step_cpu:.2f} s | {step_wall:.2f} s |")


def answer(arguments: list[str]) -> Seconds:
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(time.perf_counter() - started, cpu)


if __name__ == "__main__":
    main()
