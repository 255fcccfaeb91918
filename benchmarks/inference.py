"""Inference of a pair of networks beside the published procedure, one whole pass, and MONAI's inferer.

    python benchmarks/inference.py --scan SCAN.nii.gz      # left atrium, patch 112x112x80, stride 18x18x4
    python benchmarks/inference.py --brats                 # 240x240x155, 4 channels, patch 96, stride 64

The networks have random weights: arithmetic takes as long. All ways run in turn, forwards, then backwards,
and so on, with medians over the rounds. The published procedure is timed on a few windows (`--windows`, along
the last axis), through both networks, and multiplied by their number; the output says so. `--memory` starts a
process a way.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from peers.inference import PublishedWindows, Triple, whole_pass
from semivox.config import PredictConfig
from semivox.data.plan import Plan
from semivox.data.volume import Volume, read_image
from semivox.hardware import prefers_bf16
from semivox.heap import kept
from semivox.inference.lean import lean
from semivox.inference.model import LoadedModel
from semivox.inference.predictor import predict_case
from semivox.methods import create
from semivox.methods.base import Method
from semivox.nets import NetFactory
from timing import Seconds, medians, timed

CPU = torch.device("cpu")
PUBLISHED = "published procedure, fp32"
WHOLE_32, WHOLE_16 = "one whole pass, fp32", "one whole pass, bf16, channels last"
MONAI = "MONAI SlidingWindowInferer, same windows, bf16"
STRIDE, DEFAULT, WHOLE = "ours, published stride", "ours, default", "ours, --window whole"


class Bench:
    """All ways of segmenting one scan with the same weights.

    Args:
        array: (C, X, Y, Z), z-scored.
        patch, stride: of the published procedure.
        width: of the networks.
        windows: how many of the published windows are run.
    """

    def __init__(
        self, array: NDArray[np.float32], patch: Triple, stride: Triple, width: int, windows: int
    ) -> None:
        torch.manual_seed(0)
        channels, self.patch, self.stride = len(array), patch, stride
        self.naive = create("supervised_pair", {}, NetFactory(channels, 2, width=width)).eval()
        self.image = array
        self.published = self._published(array)
        part = (*patch[:2], patch[2] + (windows - 1) * stride[2])
        part_x, part_y, part_z = (min(a, b) for a, b in zip(part, array.shape[1:], strict=True))
        self.part = array[:, :part_x, :part_y, :part_z]
        self.share = len(self._published(self.part).corners()) / len(self.published.corners())
        self.last = deepcopy(self.naive).to(memory_format=torch.channels_last_3d)
        ours = deepcopy(self.naive)
        lean(ours, CPU)
        self.model = LoadedModel(ours, self._plan(channels), {}, CPU, "")
        self.precision = "bf16" if prefers_bf16(CPU) else "32"

    def ways(self) -> dict[str, Callable[[], object]]:
        """Each way, by name; those in `partial` run a share of their windows."""
        return {
            PUBLISHED: lambda: self._published(self.part).run(),
            STRIDE: lambda: self._ours(self.part, stride=self.stride, weighting="uniform"),
            MONAI: self._monai,
            WHOLE_32: lambda: self._whole(self.naive, bf16=False),
            WHOLE_16: lambda: self._whole(self.last, bf16=True),
            WHOLE: lambda: self._ours(self.image, window="whole"),
            DEFAULT: lambda: self._ours(self.image),
        }

    partial = (PUBLISHED, STRIDE, MONAI)

    def _published(self, array: NDArray[np.float32]) -> PublishedWindows:
        return PublishedWindows(array, nets(self.naive), 2, self.patch, self.stride)

    def _whole(self, method: Method, *, bf16: bool) -> object:
        return whole_pass(self.image, nets(method), bf16=bf16, channels_last=bf16)

    def _ours(self, array: NDArray[np.float32], **settings: object) -> object:
        volume = Volume(array, np.eye(4))
        with kept():  # as `predict` does, though for all scans together
            return predict_case(self.model, volume, PredictConfig(**settings), precision=self.precision).label

    def _monai(self) -> object:
        from monai.inferers import SlidingWindowInferer  # noqa: PLC0415

        overlap = [1 - (step + 0.5) / side for step, side in zip(self.stride, self.patch, strict=True)]
        # MONAI rounds the step down
        inferer = SlidingWindowInferer(self.patch, sw_batch_size=2, overlap=overlap)
        image = torch.from_numpy(np.ascontiguousarray(self.part))[None]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            return inferer(image, self.naive.predict)[0].argmax(0)

    def _plan(self, channels: int) -> Plan:
        return Plan(
            dataset="benchmark",
            channels=tuple(f"channel {index}" for index in range(channels)),
            class_names=("background", "object"),
            class_values=(0, 1),
            spacing_mm=(1.0, 1.0, 1.0),
            patch=self.patch,
            normalisation=("none",) * channels,
            crop="none",
            intensity=[{"mean": 0.0, "std": 1.0, "p005": -1.0, "p995": 1.0}] * channels,
            fingerprint={},
            reasons={},
        )


def nets(method: Method) -> list[torch.nn.Module]:
    """Networks A and B of a pair."""
    return [method.net_a, method.net_b]


def measure(bench: Bench, names: list[str], rounds: int) -> dict[str, list[Seconds]]:
    """Time every way in turn; whole scans are estimated from the share that is run."""
    ways = {name: run for name, run in bench.ways().items() if name in names}
    found: dict[str, list[Seconds]] = {name: [] for name in ways}
    for index in range(rounds):
        for name in list(ways)[:: 1 if index % 2 == 0 else -1]:
            seconds = timed(ways[name])
            scale = 1 / bench.share if name in bench.partial else 1.0
            found[name].append(Seconds(seconds.wall * scale, seconds.cpu * scale))
            print(f"  round {index + 1}: {name}: {found[name][-1].cpu:.1f} s", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[Seconds]], memory: dict[str, float]) -> str:
    """Medians; factors are medians over the rounds, of processor time."""
    lines = [
        "| | processor s | wall s | x published | of a whole pass | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        middle = medians(runs)
        factors = []
        for peer, inverse in ((PUBLISHED, True), (WHOLE_16, False)):
            if peer not in found:
                factors.append("")
                continue
            ratios = [other.cpu / run.cpu for other, run in zip(found[peer], runs, strict=True)]
            factors.append(f"{median(ratios):.1f}" if inverse else f"{1 / median(ratios):.2f}")
        peak = f"{memory[name]:.2f} GB" if name in memory else ""
        lines.append(
            f"| {name} | {middle.cpu:.1f} | {middle.wall:.1f} | {factors[0]} | {factors[1]} | {peak} |"
        )
    return "\n".join(lines)


def peak_gb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def memory_of(name: str) -> float:
    """Peak memory that a way adds to a process of its own, in GB."""
    command = [sys.executable, *sys.argv, "--way", name]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["gb"])


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.brats:
        array = np.random.default_rng(0).normal(size=(4, 240, 240, 155)).astype(np.float32)
        patch, stride = (96, 96, 96), (64, 64, 64)
    else:
        array = read_image([arguments.scan]).array
        patch, stride = (112, 112, 80), (18, 18, 4)
    bench = Bench(array, patch, stride, arguments.width, arguments.windows)
    names = arguments.ways or list(bench.ways())
    if arguments.way:
        before = peak_gb()
        bench.ways()[arguments.way]()
        print(json.dumps({"gb": peak_gb() - before}))
        return
    count = len(bench.published.corners())
    print(
        f"scan {'x'.join(map(str, array.shape[1:]))}, {len(array)} channel(s), width {arguments.width}, "
        f"{torch.get_num_threads()} thread(s), {arguments.rounds} rounds; {count} published windows for each"
        f" network, of which {round(bench.share * count)} were run wherever those windows are used"
    )
    memory = {name: memory_of(name) for name in names} if arguments.memory else {}
    print(table(measure(bench, names, arguments.rounds), memory))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scan", type=Path, help="NIfTI, z-scored, on the grid of the training")
    what.add_argument("--brats", action="store_true", help="noise of a BraTS scan's size")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", help="only these, by name")
    parser.add_argument("--memory", action="store_true", help="also peak memory, in a process for each way")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
