"""Strong views: intensities against NumPy and SciPy, chances, and what stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from semivox.methods import strong_views
from semivox.methods.strong_views import jitter, shade_and_blur

IMAGE = torch.randn(2, 2, 12, 8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fix(patch: pytest.MonkeyPatch, *, chosen: tuple[bool, ...], numbers: tuple[float, ...] = ()) -> None:
    """Choose patches, and draw numbers, in this order instead of at random."""
    choices, values = iter(chosen), iter(numbers)
    patch.setattr(strong_views, "_chosen", lambda *_: torch.tensor(next(choices)))
    if numbers:
        patch.setattr(strong_views, "_uniform", lambda *_: torch.tensor(next(values)))


def test_brightness_and_contrast(monkeypatch: pytest.MonkeyPatch) -> None:
    fix(monkeypatch, chosen=(True, False), numbers=(1.3, -0.2, 0.5))
    found = jitter(IMAGE, seeded()).numpy()
    for patch, image in zip(found, IMAGE.numpy(), strict=True):
        low, high = image.min(), image.max()
        unit = (image - low) / (high - low)
        expected = np.clip(1.3 * unit - 0.2 * (1.3 * unit).mean(), 0, 1) * (high - low) + low
        np.testing.assert_allclose(patch, expected, rtol=1e-6, atol=1e-6)
        assert (expected == low).any() and (expected == high).any()  # both ends are clipped


def test_noise_is_clipped_at_two_sigma(monkeypatch: pytest.MonkeyPatch) -> None:
    fix(monkeypatch, chosen=(False, True), numbers=(1.0, 0.0, 0.7))
    noise = jitter(torch.zeros(1, 1, 40, 40, 40), seeded()) / 0.7
    assert noise.abs().max().item() == pytest.approx(2.0)
    assert noise.std().item() == pytest.approx(0.9594, abs=0.01)  # of a normal clipped at 2


def test_bias_field_and_gamma(monkeypatch: pytest.MonkeyPatch) -> None:
    fix(monkeypatch, chosen=(True, False))
    found = shade_and_blur(IMAGE, seeded()).numpy()
    again = seeded()
    factors = torch.rand((2, 4, 4, 4), generator=again).double().numpy() - 0.5
    gammas = np.exp(torch.rand(2, generator=again).double().numpy() - 0.5)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, side) for side in IMAGE.shape[2:]), indexing="ij")
    for b, image in enumerate(IMAGE.numpy()):
        field = sum(
            factors[b, i, j, k] * x**i * y**j * z**k
            for i in range(4) for j in range(4 - i) for k in range(4 - i - j)
        )  # fmt: skip
        shaded = image * np.exp(field)
        np.testing.assert_allclose(found[b], np.sign(shaded) * np.abs(shaded) ** gammas[b], rtol=1e-4)


def test_blur_is_a_gaussian_of_its_own_along_each_axis() -> None:
    found = strong_views._blurred(IMAGE, seeded()).numpy()
    again = seeded()
    sigmas = np.stack([0.1 + 1.9 * torch.rand(2, generator=again).numpy() for _ in range(3)], axis=1)
    inside = np.ones(IMAGE.shape[2:])
    for b, c in np.ndindex(2, 2):
        options: dict[str, Any] = {"sigma": sigmas[b], "mode": "constant", "truncate": 200.0}
        weight = ndimage.gaussian_filter(inside, **options)
        expected = ndimage.gaussian_filter(IMAGE[b, c].numpy(), **options) / weight
        np.testing.assert_allclose(found[b, c], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("view", "share"), [(jitter, 1 - 0.2 * 0.8), (shade_and_blur, 1 - 0.2 * 0.5)])
def test_most_patches_change_each_in_its_own_way(view: Any, share: float) -> None:
    image = IMAGE[:1, :1].float().expand(600, -1, -1, -1, -1)
    found = view(image, seeded())
    changed = (found != image).flatten(1).any(dim=1)
    assert changed.float().mean().item() == pytest.approx(share, abs=0.05)
    assert len(found.flatten(1).unique(dim=0)) == int(changed.sum()) + 1
    assert torch.equal(view(image, seeded()), found) and not torch.equal(view(image, seeded(1)), found)


@pytest.mark.parametrize("view", [jitter, shade_and_blur])
def test_constant_patches_stay_finite(view: Any) -> None:
    assert bool(torch.isfinite(view(torch.full((20, 1, 4, 4, 4), 0.0), seeded())).all())
    assert bool(torch.isfinite(view(torch.full((20, 1, 4, 4, 4), -3.0), seeded())).all())
