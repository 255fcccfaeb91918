"""Training patches of one worker process: ours beside nnU-Net's loader, with and without augmentation.

    pip install -c constraints.txt nnunetv2
    python benchmarks/loader.py CASE.h5            # a published file, e.g. of the left atrium

Both read the same scan, each from its own store, half of the patches on the foreground, in one thread, by
turns, from the page cache; means of processor time, since augmentation is random. nnU-Net augments as its
default trainer does. Prints Markdown.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.update(nnUNet_raw="/", nnUNet_preprocessed="/", nnUNet_results="/")  # it warns without them

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from data import sampler, write
from peers.data import read_case
from semivox.preprocessing.store import Store
from timing import head, parser_of, row, timed

Patch = tuple[int, int, int]
PATCHES: tuple[Patch, ...] = ((112, 112, 80), (64, 64, 48))
ROTATION = (-np.pi / 6, np.pi / 6)  # of its trainer, for patches that are not flat
SCALE = (0.85, 1.25)
PRESETS = {"crop": False, "rotflip": False, "intensity": True, "strong": True}  # beside its augmentation?


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("case", type=Path, help="h5 file with image and label")
    parser.add_argument("--repeats", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    image, label = read_case(arguments.case)
    head("patch", "ours", "nnU-Net's", "nnU-Net CPU", "ours CPU", "CPU ratio")
    for patch in PATCHES:
        with tempfile.TemporaryDirectory() as folder:
            theirs, ours = Path(folder) / "nnunet", Store(Path(folder) / "semivox")
            theirs.mkdir()
            write_nnunet(theirs / "case", image, label, patch)
            write(ours, image, label)
            for preset, augmented in PRESETS.items():
                peer, own = nnunet_sampler(theirs, patch, augmented), sampler(ours, patch, preset)
                means = mean_cpu(peer, own, arguments.repeats)
                sides, how = " x ".join(map(str, patch)), "augmented" if augmented else "cropped"
                times = [f"{1e3 * mean:.1f} ms" for mean in means]
                row(sides, f"`{preset}`", how, *times, f"{means[0] / means[1]:.1f}")


def mean_cpu(a: Callable[[], Any], b: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Mean processor time of each, by turns, without the first run of each."""
    pairs = [(timed(a).cpu, timed(b).cpu) for _ in range(repeats + 1)][1:]
    return fmean(pair[0] for pair in pairs), fmean(pair[1] for pair in pairs)


def write_nnunet(path: Path, image: np.ndarray, label: np.ndarray, patch: Patch) -> None:
    """Keep a scan as nnU-Net's preprocessing does: float32, int16, and 10,000 places of the foreground."""
    shape = (1, *image.shape)
    blocks, chunks = comp_blosc2_params(shape, patch, 4)
    blocks_seg, chunks_seg = comp_blosc2_params(shape, patch, 2)
    places = np.argwhere(label[None] == 1)
    chosen = np.random.default_rng(0).choice(len(places), 10_000, replace=False)
    nnUNetDatasetBlosc2.save_case(
        image[None].astype(np.float32),
        label[None].astype(np.int16),
        {"class_locations": {1: places[chosen]}},
        str(path),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_seg,
        blocks_seg=blocks_seg,
    )


def nnunet_sampler(folder: Path, patch: Patch, augmented: bool) -> Callable[[], Any]:
    """Draw one patch with its label."""
    labels = LabelManager({"background": 0, "foreground": 1}, None)
    first = get_patch_size(patch, ROTATION, ROTATION, ROTATION, SCALE) if augmented else patch
    transforms = (
        nnUNetTrainer.get_training_transforms(patch, ROTATION, None, (0, 1, 2), False) if augmented else None
    )
    loader = nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(folder)),
        1,
        first,
        patch,
        labels,
        oversample_foreground_percent=0.5,
        probabilistic_oversampling=True,
        transforms=transforms,
    )
    return lambda: next(loader)


if __name__ == "__main__":
    main()
