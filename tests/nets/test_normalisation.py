"""Instance normalisation against PyTorch's, in both memory layouts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semivox.nets.normalisation import InstanceNorm

LAST = torch.channels_last_3d


def batch_of(samples: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(samples)
    return (5 + 3 * torch.randn(samples, 4, 6, 5, 3, generator=generator)).to(dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("samples", [1, 3])
def test_the_same_numbers_and_gradients(samples: int, training: bool) -> None:
    found = []
    for layer, image in (
        (InstanceNorm(4), batch_of(samples).to(memory_format=LAST)),
        (nn.InstanceNorm3d(4), batch_of(samples)),
    ):
        image.requires_grad_()
        result = layer.train(training)(image)
        result.pow(3).sum().backward()
        found.append((result.detach(), image.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_each_sample_has_mean_0_and_variance_1() -> None:
    result = InstanceNorm(4)(batch_of(2).to(memory_format=LAST))
    torch.testing.assert_close(result.mean((2, 3, 4)), torch.zeros(2, 4, dtype=torch.float64))
    variance = result.var((2, 3, 4), correction=0)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-4, atol=0)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_memory_layout_stays(samples: int) -> None:
    image = batch_of(samples, torch.bfloat16).to(memory_format=LAST).requires_grad_()
    result = InstanceNorm(4)(image)
    assert result.is_contiguous(memory_format=LAST)
    assert result.dtype == torch.bfloat16
    result.sum().backward()
    assert image.grad.is_contiguous(memory_format=LAST)
    assert InstanceNorm(4)(batch_of(samples)).is_contiguous()


def test_no_samples_and_too_few_voxels() -> None:
    assert InstanceNorm(4)(torch.empty(0, 4, 2, 2, 2).to(memory_format=LAST)).shape == (0, 4, 2, 2, 2)
    with pytest.raises(ValueError, match="more than 1"):
        InstanceNorm(4)(torch.ones(2, 4, 1, 1, 1).to(memory_format=LAST))
