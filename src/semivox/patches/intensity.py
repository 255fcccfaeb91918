"""Random changes of a patch's intensities: what other scanners, coils and settings would have made of it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import interpolate

Image = NDArray[np.float32]


def vary(image: Image, rng: np.random.Generator) -> Image:
    """Change each channel by noise, blur, brightness, contrast, lower resolution, gamma and a bias field.

    Each change comes with its own probability. Noise is measured in standard deviations of the patch, so the
    normalisation does not matter to it.

    Args:
        image: (C, X, Y, Z) float32; may be overwritten.
        rng: source of all randomness.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # powers differ in the last bit with their number
    try:
        for channel in image:
            channel[...] = _varied(channel, rng)
    finally:
        torch.set_num_threads(threads)
    return image


def _varied(values: Image, rng: np.random.Generator) -> Image:
    """Change one channel (X, Y, Z)."""
    if rng.random() < 0.3:
        std = float(values.std())
        values += np.float32(std * rng.uniform(0, 0.2)) * rng.standard_normal(values.shape, np.float32)
    if rng.random() < 0.25:
        values = gaussian_filter(values, rng.uniform(0.3, 1.0, 3), mode="nearest", truncate=2.5)
    if rng.random() < 0.3:
        values *= np.float32(rng.uniform(0.7, 1.3))
    if rng.random() < 0.3:
        mean = values.mean()
        values -= mean
        values *= np.float32(rng.uniform(0.65, 1.5))
        values += mean
    if rng.random() < 0.2:
        values = _coarsened(values, rng.uniform(0.5, 0.9))
    if rng.random() < 0.4:
        values = _gamma(values, rng.uniform(0.6, 1.6), inverted=rng.random() < 0.3)
    if rng.random() < 0.3:
        control = torch.from_numpy(np.exp(rng.normal(0, 0.25, (3, 3, 3))).astype(np.float32))
        values *= _resized(control, values.shape, corners=True).numpy()
    return values


def _coarsened(values: Image, factor: float) -> Image:
    """Go to a lower resolution and back."""
    small = [max(1, round(side * factor)) for side in values.shape]
    back = _resized(_resized(torch.from_numpy(values), small), values.shape)
    return np.asarray(back.numpy(), np.float32)


def _gamma(values: Image, exponent: float, *, inverted: bool) -> Image:
    """Raise values, brought to 0..1, to a power, or their complement; mean and deviation stay."""
    mean, std = float(values.mean()), float(values.std())
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-30):
        return values
    unit = torch.from_numpy(values).sub_(low).div_(high - low)
    if inverted:
        unit.neg_().add_(1)
    powers = unit.clamp_(0, 1).pow_(exponent)
    if inverted:
        powers.neg_().add_(1)
    changed = powers.numpy()
    changed -= changed.mean()
    changed *= np.float32(std / max(float(changed.std()), 1e-6))
    changed += np.float32(mean)
    return changed


def _resized(values: Tensor, shape: tuple[int, ...] | list[int], *, corners: bool = False) -> Tensor:
    size = tuple(shape)
    return interpolate(values[None, None], size, mode="trilinear", align_corners=corners)[0, 0]
