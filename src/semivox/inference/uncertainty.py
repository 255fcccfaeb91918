"""How sure a model is, voxel by voxel; and the temperature that makes its probabilities honest.

The mean of several predictions (networks, overlapping windows, views) has the entropy H(mean p). The part of
it in which they contradict each other is the mutual information H(mean p) - mean H(p); the rest is doubt that
they share (Smith and Gal, Understanding Measures of Uncertainty for Adversarial Example Detection, UAI 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

_SHIFT = 2  # voxels that a view is moved by along each axis
_SHARPEST, _SOFTEST = 0.25, 4.0  # limits of a temperature
_BINS = 15
_FLOOR = 1e-7  # of a probability, before its logarithm


class View(NamedTuple):
    """A small change of windows (B, C, X, Y, Z), and how the answer (B, K, X, Y, Z) is brought back."""

    change: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def entropy(probs: Tensor) -> Tensor:
    """(K, ...) -> (...): the entropy over the classes, as a share of the largest possible one, 0 to 1."""
    total = torch.zeros_like(probs[0])
    for values in probs:
        total -= torch.special.xlogy(values, values)
    return total.clamp_(min=0) / math.log(len(probs))


def views(augmented: bool) -> list[View]:
    """Return the views whose mean is predicted: the scan alone, or with four small changes of it."""

    def same(values: Tensor) -> Tensor:
        return values

    if not augmented:
        return [View(same, same)]
    return [
        View(same, same),
        View(lambda image: 1.1 * image, same),
        View(lambda image: 0.9 * image + 0.1, same),
        View(lambda image: _moved(image, _SHIFT), lambda probs: _moved(probs, -_SHIFT)),
        View(lambda image: _moved(image, -_SHIFT), lambda probs: _moved(probs, _SHIFT)),
    ]


def _moved(values: Tensor, by: int) -> Tensor:
    """Move (B, C, X, Y, Z) by voxels along each axis; what enters at the border repeats it."""
    before, after = max(by, 0), max(-by, 0)
    padded = functional.pad(values, (before, after) * 3, mode="replicate")
    x, y, z = values.shape[2:]
    return padded[:, :, after : after + x, after : after + y, after : after + z]


def tempered(probs: Tensor, temperature: float) -> Tensor:
    """Return p^(1/T) / sum over the classes: softer for T above 1; the most probable class stays the same."""
    if temperature == 1.0:
        return probs
    powers = probs.clamp(min=0) ** (1 / temperature)
    return powers / powers.sum(0, keepdim=True).clamp(min=_FLOOR)


class Sample(NamedTuple):
    """Voxels in question of some cases: where foreground is true or more than 1 % probable."""

    probs: NDArray[np.float64]  # (N, K)
    true: NDArray[np.int64]  # (N,)


def sample(probs: Tensor, label: NDArray[np.uint8], most: int) -> Sample:
    """Take at most `most` evenly spread voxels in question; label values above K - 1 are not annotated."""
    values, true = probs.flatten(1).T.cpu().numpy(), label.ravel().astype(np.int64)
    chosen = np.flatnonzero(((true > 0) | (values[:, 0] < 0.99)) & (true < values.shape[1]))
    chosen = chosen[:: max(1, -(-len(chosen) // most))]
    return Sample(values[chosen].astype(np.float64), true[chosen])


def fit_temperature(voxels: Sample) -> float:
    """Return the temperature with the highest likelihood (Guo et al., Calibration, ICML 2017); 1 for none."""
    if not len(voxels.true):
        return 1.0
    logs = np.log(np.maximum(voxels.probs, _FLOOR))
    rows = np.arange(len(logs))

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        top = scaled.max(1)
        partition = top + np.log(np.exp(scaled - top[:, None]).sum(1))
        return float((partition - scaled[rows, voxels.true]).mean())

    limits = math.log(_SHARPEST), math.log(_SOFTEST)
    return round(math.exp(minimize_scalar(loss, bounds=limits, method="bounded").x), 4)


def calibration_error(voxels: Sample) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, over 15 bins."""
    confidence, right = voxels.probs.max(1), voxels.probs.argmax(1) == voxels.true
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((confidence - right)[bins == index].sum())) for index in range(_BINS)]
    return sum(gaps) / max(len(right), 1)
