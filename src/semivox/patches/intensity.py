"""Random changes of a patch's intensities: what other scanners, coils and settings would have made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from semivox.hardware import one_thread
from semivox.patches.deformation import resized

Image = NDArray[np.float32]
Intensity = Callable[[Image, np.random.Generator], Image]


class MonaiIntensity:
    """Change the standardised image by MONAI's transforms, preset intensity or strong; can be pickled."""

    def __init__(self, preset: Literal["intensity", "strong"]) -> None:
        from monai import transforms as t

        strong = preset == "strong"
        share, noise, blur = (0.3, 0.25, (0.3, 1.5)) if strong else (0.15, 0.15, (0.3, 1.0))
        gamma, often = ((0.5, 2.0), 0.5) if strong else ((0.7, 1.5), 0.3)
        self.contrast = t.RandAdjustContrast(prob=often, gamma=gamma)
        others = [
            t.RandScaleIntensity(prob=0.3, factors=share),
            t.RandShiftIntensity(prob=0.3, offsets=share),
            t.RandGaussianSmooth(prob=0.2, sigma_x=blur, sigma_y=blur, sigma_z=blur),
            t.RandGaussianNoise(prob=0.3, std=noise),
        ]
        coarser = [t.RandSimulateLowResolution(prob=0.25, zoom_range=(0.5, 1.0))] if strong else []
        self.others = t.Compose(others + coarser)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        from monai.data import get_track_meta, set_track_meta

        self.contrast.set_random_state(seed=int(rng.integers(2**31)))
        self.others.set_random_state(seed=int(rng.integers(2**31)))
        standard, mean, std = _standardised(image)
        before = get_track_meta()
        set_track_meta(False)  # wrapping tensors with metadata takes most of the time of a small patch
        try:
            with one_thread():  # the last bit of powers differs with the number of threads
                standard, _, _ = _standardised(self.contrast(torch.from_numpy(standard)).numpy())
                changed = self.others(torch.from_numpy(standard)).numpy()
        finally:
            set_track_meta(before)
        return np.ascontiguousarray(changed * std + mean, dtype=np.float32)


def _standardised(image: Image) -> tuple[Image, Image, Image]:
    """Bring each channel to mean 0 and deviation 1; return also the old mean and deviation (C, 1, 1, 1)."""
    mean = image.mean(axis=(1, 2, 3), keepdims=True)
    std = image.std(axis=(1, 2, 3), keepdims=True)
    std[std == 0] = 1
    return (image - mean) / std, mean, std


def vary(image: Image, rng: np.random.Generator) -> Image:
    """Change each channel by noise, blur, brightness, contrast, lower resolution, gamma and a bias field.

    Each change comes with its own probability. Noise is measured in standard deviations of the patch, so the
    normalisation does not matter to it.

    Args:
        image: (C, X, Y, Z) float32; may be overwritten.
        rng: source of all randomness.
    """
    with one_thread():
        for channel in image:
            channel[...] = _varied(channel, rng)
    return image


def _varied(values: Image, rng: np.random.Generator) -> Image:
    """Change one channel (X, Y, Z)."""
    if rng.random() < 0.3:
        _, std = _spread(values)
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
        factor = rng.uniform(0.5, 0.9)
        small = [max(1, round(side * factor)) for side in values.shape]
        values = resized(resized(torch.from_numpy(values), small), values.shape).numpy()
    if rng.random() < 0.4:
        values = _gamma(values, rng.uniform(0.6, 1.6), inverted=rng.random() < 0.3)
    if rng.random() < 0.3:
        control = torch.from_numpy(np.exp(rng.normal(0, 0.25, (3, 3, 3))).astype(np.float32))
        values *= resized(control, values.shape, corners=True).numpy()
    return values


def _gamma(values: Image, exponent: float, *, inverted: bool) -> Image:
    """Raise values, brought to 0..1, to a power, or their complement; mean and deviation stay."""
    low, high, mean, std = values.min(), values.max(), *_spread(values)
    if high - low < 1e-6 * max(abs(low), abs(high), np.float32(1e-30)):
        return values
    unit = torch.from_numpy(high - values if inverted else values - low)
    changed: Image = unit.div_(float(high - low)).clamp_(0, 1).pow_(exponent).numpy()
    new_mean, new_std = _spread(changed)
    factor = np.float32(std / max(new_std, 1e-6) * (-1 if inverted else 1))
    changed *= factor
    changed += np.float32(mean - factor * new_mean)
    return changed


def _spread(values: Image) -> tuple[float, float]:
    """Return mean and standard deviation; four times as fast as those of PyTorch or NumPy."""
    mean = float(values.mean())
    centered = (values - np.float32(mean)).ravel()
    return mean, float(np.sqrt(np.einsum("i,i", centered, centered) / centered.size))
