"""Inference of a pair of networks beside the published procedure, one whole pass, MONAI's and nnU-Net's ways.

    python benchmarks/inference.py --scan SCAN.nii.gz      # left atrium, patch 112x112x80, stride 18x18x4
    python benchmarks/inference.py --brats FLAIR T1 T1CE T2   # patch 96, stride 64; no files: noise

Of a real BraTS scan ours segments the box around the brain, as its plan says, and so does nnU-Net, whose
preparation cuts it out; the other ways take all of it. nnU-Net's predictor is one of the ways after
`pip install -c constraints.txt nnunetv2`; it runs the same pair of networks.

The networks have random weights: arithmetic takes as long. All ways run in turn, forwards, then backwards,
and so on, with medians over the rounds. The published procedure is timed on a few windows (`--windows`, along
the last axis), through both networks, and multiplied by their number; the output says so. `--memory` starts a
process a way.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from inference_ways import PUBLISHED, WHOLE_LAST, Bench
from semivox.io.volume import read_image
from timing import Seconds, head, medians, parser_of, peak_mb, row, timed


def brats(files: list[Path]) -> NDArray[np.float32]:
    """(4, 240, 240, 155), z-scored over the brain as published, the background at its minimum; or noise."""
    if not files:
        return np.random.default_rng(0).normal(size=(4, 240, 240, 155)).astype(np.float32)
    array = np.concatenate([read_image([file]).array for file in files])
    for channel in array:
        inside = channel[channel > 0]
        channel[...] = np.where(channel > 0, (channel - inside.mean()) / inside.std(), -9.0)
    return array


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


def show(found: dict[str, list[Seconds]], memory: dict[str, float]) -> None:
    """Print medians; factors are medians over the rounds, of processor time."""
    head("", "processor s", "wall s", "x published", "of a whole pass", "peak memory")
    for name, runs in found.items():
        middle = medians(runs)
        factors = []
        for peer, inverse in ((PUBLISHED, True), (WHOLE_LAST, False)):
            if peer not in found:
                factors.append("")
                continue
            ratios = [other.cpu / run.cpu for other, run in zip(found[peer], runs, strict=True)]
            factors.append(f"{median(ratios):.1f}" if inverse else f"{1 / median(ratios):.2f}")
        peak = f"{memory[name]:.2f} GB" if name in memory else ""
        row(name, f"{middle.cpu:.1f}", f"{middle.wall:.1f}", *factors, peak)


def memory_of(name: str) -> float:
    """Peak memory that a way adds to a process of its own, in GB."""
    command = [sys.executable, *sys.argv, "--way", name]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.brats is not None:
        array = brats(arguments.brats)
        patch, stride = (96, 96, 96), (64, 64, 64)
    else:
        array = read_image([arguments.scan]).array
        patch, stride = (112, 112, 80), (18, 18, 4)
    bench = Bench(
        array, patch, stride, arguments.width, arguments.windows, "foreground" if arguments.brats else "none"
    )
    names = arguments.ways or list(bench.ways())
    if arguments.way:
        before = peak_mb()
        bench.ways()[arguments.way]()
        print((peak_mb() - before) / 2**10)
        return
    count = len(bench.published.corners())
    print(
        f"scan {'x'.join(map(str, array.shape[1:]))}, {len(array)} channel(s), width {arguments.width}, "
        f"{torch.get_num_threads()} thread(s), {arguments.rounds} rounds; {count} published windows for each"
        f" network, of which {round(bench.share * count)} were run wherever those windows are used"
    )
    memory = {name: memory_of(name) for name in names} if arguments.memory else {}
    show(measure(bench, names, arguments.rounds), memory)


def parse() -> argparse.Namespace:
    parser = parser_of(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scan", type=Path, help="NIfTI, z-scored, on the grid of the training")
    what.add_argument(
        "--brats", type=Path, nargs="*", help="the four files of a scan; none: noise of its size"
    )
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
