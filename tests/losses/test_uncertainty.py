"""Percentiles, entropies and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.uncertainty import (
    add_noise,
    normalised_entropy,
    percentile,
    percentile_by_class,
    sampled_probabilities,
)


@pytest.mark.parametrize("q", [0, 1, 20, 30, 50, 70, 80, 99.9, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 101, 4096, 54321])
def test_percentile_equals_numpy(size: int, q: float) -> None:
    values = np.random.default_rng(size).exponential(size=size)
    ours = percentile(torch.from_numpy(values), q).item()
    assert ours == pytest.approx(np.percentile(values, q), rel=1e-12, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.3, 0.3, 0.69, -1.0]), min_size=1, max_size=30),
    st.floats(0, 100),
)
def test_percentile_with_ties(values: list[float], q: float) -> None:
    ours = percentile(torch.tensor(values, dtype=torch.float64), q).item()
    assert ours == pytest.approx(np.percentile(values, q), abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.3, 0.6931472])
@pytest.mark.parametrize("q", [0, 30, 70, 99, 100])
def test_percentile_of_a_constant_is_that_constant(value: float, q: float) -> None:
    values = torch.full((3, 5, 7), value)
    assert not bool((values > percentile(values, q)).any())
    assert bool((values <= percentile(values, q)).all())


def test_percentile_beyond_the_limit_of_torch_quantile() -> None:
    values = torch.rand(2**24 + 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError):
        torch.quantile(values, 0.7)
    assert percentile(values, 70).item() == pytest.approx(float(np.percentile(values.numpy(), 70)), abs=1e-6)


def test_percentile_float32_and_shape_and_layout() -> None:
    values = torch.rand(2, 9, 8, 7, generator=torch.Generator().manual_seed(1))
    expected = float(np.percentile(values.numpy().astype(np.float64), 70))
    assert percentile(values, 70).item() == pytest.approx(expected, abs=1e-6)
    assert percentile(values.permute(0, 3, 1, 2), 70).item() == pytest.approx(expected, abs=1e-6)
    assert percentile(values, 70).shape == ()


def test_percentile_of_nothing_is_zero_and_carries_no_gradient() -> None:
    assert percentile(torch.zeros(0, 4), 70).item() == 0
    assert not percentile(torch.rand(10, requires_grad=True), 70).requires_grad


def test_entropy_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.9, 0.1]], dtype=torch.float64).clamp_min(1e-300).log()
    entropy = Prediction.of(logits.view(3, 2, 1, 1, 1).requires_grad_()).entropy()
    assert entropy.flatten().tolist() == pytest.approx([np.log(2), 0.0, 0.3250829733914482], abs=1e-9)
    assert not entropy.requires_grad


def test_normalised_entropy_by_hand() -> None:
    """-(sum p log(p + 1e-6)) / log K, below 1 also where all classes are equal."""
    probs = torch.tensor([[0.5, 0.5, 0], [1, 0, 0], [0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    expected = [-sum(p * np.log(p + 1e-6) for p in row) / np.log(3) for row in probs.double().tolist()]
    probs = probs.view(4, 3, 1, 1, 1).requires_grad_()
    found = normalised_entropy(probs)
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert not found.requires_grad
    half = normalised_entropy(torch.full((1, 2, 1, 1, 1), 0.5))
    assert half.item() * np.log(2) == pytest.approx(np.log(2) - 2e-6, abs=1e-7)
    assert half.item() < 1 and found[3].item() < 1


def test_prediction_of_half_precision_is_float32_and_slices_share_the_graph() -> None:
    logits = torch.randn(3, 4, 2, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    prediction = Prediction.of(logits)
    assert prediction.log_probs.dtype == prediction.probs.dtype == torch.float32
    assert torch.equal(prediction.label, logits.argmax(dim=1))
    torch.testing.assert_close(prediction.probs, torch.softmax(logits.float(), dim=1))
    prediction[1:].probs[:, 0].sum().backward()
    assert logits.grad is not None and bool((logits.grad[0] == 0).all()) and bool((logits.grad[1] != 0).any())


def test_saturated_logits_stay_finite() -> None:
    logits = torch.tensor([500.0, -500.0, 0.0]).view(1, 3, 1, 1, 1).requires_grad_()
    prediction = Prediction.of(logits)
    assert prediction.entropy().item() == 0
    prediction.log_probs.sum().backward()
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


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


@pytest.mark.parametrize("q", [0, 30, 70, 100])
def test_percentile_of_each_class_leaves_a_voxel_of_each(q: float) -> None:
    """Against NumPy's percentile with the rank rounded up, class by class; a class may be absent."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 3, 4, 5, generator=generator)
    label = torch.randint(0, 3, values.shape, generator=generator)
    label[label == 1] = 3
    found = percentile_by_class(values, label, 4, q)
    for index in (0, 2, 3):
        inside = label == index
        expected = np.percentile(values[inside].numpy(), q, method="higher")
        assert found[inside].unique().tolist() == pytest.approx([expected])
        assert (values <= found)[inside].any()
    assert percentile_by_class(values[:0], label[:0], 4, q).shape == (0, 3, 4, 5)
