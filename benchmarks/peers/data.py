"""Frozen peer: how published semi-supervised code reads a training patch.

A case is one gzip h5 file with the arrays `image` and `label`. For every patch both are read whole, padded
where they are too small, and cropped at a random place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

CHUNKS_IMAGE, CHUNKS_LABEL, LEVEL = (25, 18, 22), (25, 36, 22), 4  # as in the published left-atrium files


def write_case(path: Path, image: Array, label: Array) -> None:
    """Write `image` (X, Y, Z) as float32 and `label` as uint8, with the published files' settings."""
    with h5py.File(path, "w") as file:
        for key, array, chunks in (
            ("image", np.asarray(image, np.float32), CHUNKS_IMAGE),
            ("label", np.asarray(label, np.uint8), CHUNKS_LABEL),
        ):
            fitting = tuple(min(pair) for pair in zip(chunks, array.shape, strict=True))
            file.create_dataset(key, data=array, chunks=fitting, compression="gzip", compression_opts=LEVEL)


def read_case(path: Path) -> tuple[Array, Array]:
    """Read image (X, Y, Z) float32 and label (X, Y, Z) uint8, both whole."""
    with h5py.File(path, "r") as file:
        return file["image"][:], file["label"][:]


def read_patch(path: Path, patch: Sequence[int], rng: np.random.Generator) -> tuple[Array, Array]:
    """Read the whole case and return a random patch of it, image and label of the shape `patch`.

    The place is drawn axis by axis, uniformly over all that fit.
    """
    image, label = read_case(path)
    short = [max(0, size - n) for size, n in zip(patch, image.shape, strict=True)]
    if any(short):
        border = [(missing // 2, missing - missing // 2) for missing in short]
        image, label = np.pad(image, border), np.pad(label, border)
    first = [int(rng.integers(n - size + 1)) for size, n in zip(patch, image.shape, strict=True)]
    key = tuple(slice(start, start + size) for start, size in zip(first, patch, strict=True))
    return image[key].copy(), label[key].copy()
