"""Time of a training step: `dual` beside its naive peer, or every method beside the passes it makes.

    python benchmarks/step.py                                    # 4 x 64x64x48, width 16, one thread
    python benchmarks/step.py --patch 112x112x80 --threads 2 --out step.csv
    python benchmarks/step.py --methods all --out methods.csv    # a process a method

`overhead` is what a step costs beyond its networks: losses forward and backward, optimiser. Appends to the
CSV file and prints rows of a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from passes import Recorder, timed_distances
from peers.dual_step import DualStep
from semivox.config import TrainConfig
from semivox.hardware import prefers_bf16
from semivox.methods import METHODS, create, method_class
from semivox.methods.base import Batch
from semivox.nets import NetFactory
from semivox.nets.blocks import NORMS
from semivox.nets.cpu import kept
from semivox.training.fabric import Precision, autocast, make_fabric
from semivox.training.step import Stepper, streams
from timing import Elsewhere, Seconds, alternating, head, medians, parser_of, peak_mb, row, timed, triple

FRACTION = 0.7  # of the run: no ramp is near 0, no warm-up is left
ITERATIONS = 1000
PRECISION: dict[str, Precision] = {"32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Setting:
    """What a step works on."""

    patch: tuple[int, int, int]
    batch: int
    width: int
    threads: int
    precision: str
    norm: str = "batch"

    @property
    def name(self) -> str:
        """E.g. 4x64x64x48."""
        return "x".join(map(str, (self.batch, *self.patch)))


class Ours:
    """A registered method, stepped as training steps it, without reading data."""

    def __init__(self, name: str, setting: Setting, **options: Any) -> None:
        torch.manual_seed(0)
        self.method = create(name, options, NetFactory(1, 2, width=setting.width, norm=setting.norm)).train()
        self.fabric = make_fabric(torch.device("cpu"), PRECISION[setting.precision])
        self.stepper = Stepper(self.fabric, self.method, TrainConfig(iterations=ITERATIONS))
        share = setting.batch // 4
        labeled, unlabeled = (share * count for count in method_class(name).batch)
        self.batches = batches(labeled, unlabeled, setting.patch)

    def step(self) -> None:
        """Take a step: losses, backward pass, optimisers, teacher."""
        self.stepper.step(round(FRACTION * ITERATIONS), *self.batches)

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the precision of the networks."""
        return autocast(self.fabric)


def batches(labeled: int, unlabeled: int, patch: tuple[int, int, int]) -> tuple[Batch, Batch]:
    """Make noise with a bright box, as the loaders return it."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(labeled + unlabeled, 1, *patch, generator=generator)
    label = torch.zeros(labeled, *patch, dtype=torch.int64)
    box = tuple(slice(side // 4, side // 2) for side in patch)
    label[:, *box] = 1
    image[:, :, *box] += 2
    entries = {"labeled": {"image": image[:labeled], "label": label}}
    if unlabeled:
        entries["unlabeled"] = {"image": image[labeled:]}
        entries["unlabeled"]["image_strong"] = image[labeled:].clone()
    return streams(entries)


class Peer:
    """The naive step on the same patches."""

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.naive = DualStep(in_channels=1, classes=2, width=setting.width, dropout=0.5)
        share = setting.batch // 2
        labeled, unlabeled = batches(share, share, setting.patch)
        self.images = labeled.image.contiguous(), labeled.target, unlabeled.image.contiguous()

    def step(self) -> None:
        """Losses, backward pass, both optimisers."""
        self.naive.step(*self.images, FRACTION)


class Dual(Ours):
    """`dual` as `train` runs it, with the terms of its peer: freed memory stays with the process."""

    def __init__(self, setting: Setting) -> None:
        super().__init__("dual", setting, ue_reading="term")
        self._kept = kept()
        self._kept.__enter__()

    def overhead(self, repeats: int) -> float:
        """Share of a step outside the networks, in processor time."""
        whole, passes, _ = measure(self, repeats)
        return (whole.cpu - passes.cpu) / whole.cpu


def compare(setting: Setting, repeats: int) -> dict[str, Any]:
    """Peer and ours, alternating, each in its process; and what part of ours is networks."""
    with (
        Elsewhere(Peer, setting, threads=setting.threads) as peer,
        Elsewhere(Dual, setting, threads=setting.threads) as ours,
    ):
        found = alternating(lambda: peer.timed("step"), lambda: ours.timed("step"), repeats)
        overhead, _ = ours.call("overhead", repeats)
    names = zip(("peer", "ours", "ratio"), found, strict=True)
    times = {f"{name}_{kind}": getattr(spent, kind) for name, spent in names for kind in ("wall", "cpu")}
    return {**times, "overhead": overhead}


def measure(ours: Ours, repeats: int) -> tuple[Seconds, Seconds, Recorder]:
    """Medians of a step and of its passes alone, alternating, without a first round: the heap grows."""
    with Recorder(ours.method) as recorder:
        ours.step()
    steps, passes = [], []
    for _ in range(repeats + 1):
        steps.append(timed(ours.step))
        passes.append(recorder.replay(ours.autocast))
    return medians(steps[1:]), medians(passes[1:]), recorder


@kept()
def one_method(name: str, setting: Setting, repeats: int) -> dict[str, Any]:
    """A step of one method, what its networks alone take, and its peak memory above the start."""
    torch.ones(1).sum()
    start = peak_mb()
    ours = Ours(name, setting)
    with timed_distances() as distances:
        ours.step()
        memory = peak_mb() - start
        distances.clear()
        ours.step()
        apart = sum(distances)
    whole, passes, recorder = measure(ours, repeats)
    return {
        "method": name,
        "step_wall": whole.wall,
        "step_cpu": whole.cpu,
        "passes_cpu": passes.cpu,
        "distance_cpu": apart,
        "above_passes": (whole.cpu - apart) / passes.cpu - 1,
        "gmac_trained": recorder.macs[True] / 1e9,
        "gmac_forward": recorder.macs[False] / 1e9,
        "memory_mb": memory,
    }


def main() -> None:
    arguments = parse()
    if arguments.methods and arguments.child is None:
        names = list(METHODS) if arguments.methods == ["all"] else arguments.methods
        options = [option for option in sys.argv[1:] if option not in (*arguments.methods, "--methods")]
        for row_number, name in enumerate(names):
            command = [sys.executable, __file__, *options, "--methods", name, "--child", str(row_number)]
            subprocess.run(command, check=True)
        return
    setting = Setting(**{field.name: getattr(arguments, field.name) for field in fields(Setting)})
    torch.set_num_threads(setting.threads)
    if arguments.methods:
        found = one_method(arguments.methods[0], setting, arguments.repeats)
    else:
        found = compare(setting, arguments.repeats)
    about = {
        "size": setting.name,
        **{name: getattr(setting, name) for name in ("width", "norm", "threads", "precision")},
        "repeats": arguments.repeats,
        "load": round(os.getloadavg()[0], 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}",
    }
    found = {**about, **found}
    if arguments.out:
        pd.DataFrame([found]).to_csv(arguments.out, mode="a", header=not arguments.out.exists(), index=False)
    shown = {key: value for key, value in found.items() if key not in ("machine", "repeats")}
    if not arguments.child:
        head(*shown)
    row(*(f"{value:.3g}" if isinstance(value, float) else value for value in shown.values()))


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--patch", type=triple, default=(64, 64, 48))
    parser.add_argument("--batch", type=int, default=4, help="patches a step of 2 + 2, a multiple of 4")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--norm", choices=NORMS, default="batch", help="of the networks, with --methods")
    parser.add_argument("--threads", type=int, default=1)
    default = "bf16" if prefers_bf16(torch.device("cpu")) else "32"
    parser.add_argument("--precision", choices=PRECISION, default=default)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", help="all, or names: beside their passes instead of a peer")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="CSV file to append to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
