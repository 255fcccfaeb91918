"""How time and memory grow: a step of `dual` with patch, batch and width, a prediction with its volume.

    python benchmarks/scaling.py --repeats 3

Each row is a process of its own, so that its peak memory is its own. The step is forward, losses, backward
and optimiser of `dual` in training's precision and layout; the prediction is one pass of both networks over
the whole volume. The exponent is the slope of a straight line through the logarithms, by least squares. One
thread of a CPU. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from math import prod
from statistics import linear_regression
from typing import Any

from timing import head, medians, parser_of, peak_mb, row, timed

SIDES = ((32, 32, 32), (48, 48, 32), (48, 48, 48), (64, 64, 48))
TABLES: dict[str, list[dict[str, Any]]] = {
    "step, patch volume": [{"patch": patch, "batch": 1, "width": 8} for patch in SIDES],
    "step, batch (each stream)": [{"patch": SIDES[0], "batch": batch, "width": 8} for batch in (1, 2, 4)],
    "step, width": [{"patch": SIDES[0], "batch": 1, "width": width} for width in (4, 8, 16)],
    "prediction, volume": [{"volume": side, "width": 8} for side in (*SIDES, (96, 96, 64))],
}
GROWS = ("voxels", "batch", "width", "voxels")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(json.loads(arguments.one), arguments.repeats)))
        return
    options = [sys.executable, __file__, "--repeats", str(arguments.repeats), "--one"]
    for (title, rows), grows in zip(TABLES.items(), GROWS, strict=True):
        print(f"\n{title}\n")
        head("volume", "batch", "width", "precision", "CPU", "wall", "memory above the start")
        found = []
        for one in rows:
            out = subprocess.check_output([*options, json.dumps(one)], text=True)
            found.append(json.loads(out.splitlines()[-1]))
            show(one, found[-1])
        sizes = [prod(sides(one)) if grows == "voxels" else one[grows] for one in rows]
        print(f"\nexponents: CPU time {exponent(sizes, found, 'cpu'):.2f},", end=" ")
        print(f"memory {exponent(sizes, found, 'mb'):.2f}", flush=True)


def sides(row: dict[str, Any]) -> list[int]:
    return list(row["patch"] if "patch" in row else row["volume"])


def show(one: dict[str, Any], found: dict[str, float]) -> None:
    batch = f"{one['batch']} + {one['batch']}" if "batch" in one else "1"
    times = [f"{found[key]:.3f} s" for key in ("cpu", "wall")]
    precision, memory = "bf16" if found["half"] else "32", f"{found['mb'] * 2**20 / 1e6:.0f} MB"
    row(" x ".join(map(str, sides(one))), batch, one["width"], precision, *times, memory)


def exponent(sizes: list[int], found: list[dict[str, float]], key: str) -> float:
    logs = [math.log(size) for size in sizes], [math.log(row[key]) for row in found]
    return linear_regression(*logs).slope


def measure(row: dict[str, Any], repeats: int) -> dict[str, float]:
    """Median processor and wall time after one run to warm up, and the growth of the peak memory."""
    import torch

    from semivox.hardware import prefers_bf16
    from semivox.methods import create
    from semivox.methods.base import Batch, Step
    from semivox.nets import NetFactory

    torch.set_num_threads(1)
    half = prefers_bf16(torch.device("cpu"))
    method = create("dual", {}, NetFactory(1, 2, width=row["width"], norm="group"))
    method = method.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)

    def image(count: int) -> torch.Tensor:
        shape = (count, 1, *sides(row))
        return torch.randn(shape).clone(memory_format=torch.channels_last_3d)

    def step() -> None:
        batch = row["batch"]
        label = (image(batch)[:, 0] > 1).long()
        now = Step(iteration=500, total=1000, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            losses = method.losses(Batch(image(batch), label), Batch(image(batch), None), now)
        optimizer.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        optimizer.step()

    def predict() -> None:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            method.eval().predict(image(1))

    before = peak_mb()
    run = step if "batch" in row else predict
    run()
    spent = medians([timed(run) for _ in range(repeats)])
    return {"cpu": spent.cpu, "wall": spent.wall, "mb": peak_mb() - before, "half": half}


if __name__ == "__main__":
    main()
