"""Distributions of voxel values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PERCENTILES = {"p005": 0.5, "p050": 5.0, "p500": 50.0, "p950": 95.0, "p995": 99.5}
_SAMPLE = 500_000  # voxels that percentiles of a large scan are taken from
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Intensity:
    """Distribution of one channel's values.

    Attributes:
        percentiles: value at each of `PERCENTILES`.
        mean: of the values.
        std: population standard deviation.
    """

    percentiles: dict[str, float]
    mean: float
    std: float

    @classmethod
    def of(cls, values: Array) -> Intensity:
        """Describe any number of values; percentiles of more than half a million come from a fixed sample."""
        flat = values.reshape(1, -1)
        levels = np.percentile(sample(flat, _SAMPLE), list(PERCENTILES.values())).tolist()
        return cls(dict(zip(PERCENTILES, levels, strict=True)), *moments(flat))

    def as_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "std": self.std, **self.percentiles}


def moments(values: Array) -> tuple[float, float]:
    """Give mean and population standard deviation, summed in float64 without a copy of the whole array.

    Zero for both when there are no values.
    """
    flat = values.reshape(-1)
    if flat.size == 0:
        return 0.0, 0.0
    mean = float(flat.mean(dtype=np.float64))
    squares = 0.0
    for first in range(0, flat.size, _CHUNK):
        part = flat[first : first + _CHUNK].astype(np.float64) - mean
        squares += float(part @ part)
    return mean, float(np.sqrt(squares / flat.size))


def sample(values: Array, limit: int) -> Array:
    """Take at most `limit` columns of (C, N), always the same ones."""
    count = values.shape[1]
    return values if count <= limit else values[:, np.random.default_rng(0).integers(count, size=limit)]
