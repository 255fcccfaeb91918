from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.perturb import add_noise, sampled_probabilities


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_is_a_clipped_normal() -> None:
    """Spread of a normal clipped at two standard deviations: 0.9595 of it, 4.55 % at the limits."""
    noise = (add_noise(torch.full((100, 100, 100), 7.0), generator()) - 7.0).double()
    assert noise.abs().max().item() == pytest.approx(0.2, abs=1e-6)
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    assert noise.std().item() == pytest.approx(0.09595, rel=2e-3)
    assert (noise.abs() > 0.2 - 1e-6).double().mean().item() == pytest.approx(0.0455, rel=2e-2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_follows_the_generator_and_keeps_type_and_layout(dtype: torch.dtype, channels: int) -> None:
    image = torch.zeros(2, channels, 4, 4, 4, dtype=dtype).clone(memory_format=torch.channels_last_3d)
    noisy = add_noise(image, generator(3), std=0.5, limit=0.6)
    drawn = 0.5 * torch.randn(image.shape, generator=generator(3), dtype=dtype).numpy()
    np.testing.assert_allclose(noisy.numpy(), np.clip(drawn, -0.6, 0.6), rtol=1e-6)
    assert noisy.dtype == dtype and noisy.stride() == image.stride()
    assert not torch.equal(add_noise(image, generator(4)), add_noise(image, generator(3)))


def test_sampled_probabilities_against_single_passes() -> None:
    """Mean over six passes, two a call, each with noise of its own."""
    image = torch.randn(2, 1, 3, 2, 2, generator=generator(1), dtype=torch.float64)
    sizes: list[int] = []

    def net(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return torch.cat([x, -2 * x.square()], dim=1)

    found = sampled_probabilities(net, image, generator(2), passes=6, std=0.3, limit=0.4)
    again, expected = generator(2), np.zeros((2, 2, 3, 2, 2))
    for _ in range(3):
        noise = np.clip(
            0.3 * torch.randn(4, 1, 3, 2, 2, generator=again, dtype=torch.float64).numpy(), -0.4, 0.4
        )
        for half in (noise[:2], noise[2:]):
            x = image.numpy()[:, 0] + half[:, 0]
            powers = np.exp(np.stack([x, -2 * x**2], axis=1))
            expected += powers / powers.sum(axis=1, keepdims=True) / 6
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert sizes == [4, 4, 4]


def test_sampled_probabilities_carry_no_gradient_and_are_single_precision() -> None:
    conv = torch.nn.Conv3d(1, 3, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sampled_probabilities(conv, torch.randn(1, 1, 2, 2, 2), generator(), passes=2)
    assert not found.requires_grad and found.dtype == torch.float32
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 2, 2, 2))
