"""Normalisation of few channels against PyTorch's in double precision, and its side effects."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, instance_norm

from semivox.nets.layout_norm import is_slow, normalise
from semivox.nets.normalisation import BatchNorm, InstanceNorm

LAST = torch.channels_last_3d


def maps(channels: int, dtype: torch.dtype = torch.float32, sides: tuple[int, ...] = (6, 5, 4)) -> Tensor:
    """Three samples of different means and deviations, far from 0."""
    generator = torch.Generator().manual_seed(channels)
    values = torch.randn(3, channels, *sides, generator=generator) * torch.arange(1, channels + 1).view(
        -1, 1, 1, 1
    )
    values += 4 + torch.arange(3).view(-1, 1, 1, 1, 1)
    return values.to(dtype).to(memory_format=LAST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(
    ("channels", "sides"), [(1, (6, 5, 4)), (2, (4, 4, 4)), (3, (6, 5, 4)), (8, (3, 3, 3)), (12, (6, 5, 4))]
)
def test_numbers_and_gradients(
    channels: int, sides: tuple[int, ...], per_sample: bool, dtype: torch.dtype
) -> None:
    image = maps(channels, dtype, sides)
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(image.shape, generator=generator).to(dtype)  # in the other layout
    learned = [] if per_sample else [0.5 + torch.rand(channels, generator=generator) for _ in range(2)]
    mine = [one.detach().requires_grad_() for one in (image, *learned)]
    exact = [one.detach().double().requires_grad_() for one in (image, *learned)]
    result, moments = normalise(mine[0], *(mine[1:] or (None, None)), per_sample=per_sample, eps=1e-5)
    if per_sample:
        expected = instance_norm(exact[0], eps=1e-5)
    else:
        expected = batch_norm(exact[0], None, None, *exact[1:], training=True, eps=1e-5)
    result.backward(grad)
    expected.backward(grad.double())
    rough = dtype == torch.bfloat16
    close = {"rtol": 0.02 if rough else 1e-4, "atol": 0.03 if rough else 1e-4}
    torch.testing.assert_close(result.double(), expected, **close)
    for one, other in zip(mine, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, **close)
    assert result.dtype == dtype and result.is_contiguous(memory_format=LAST)
    assert mine[0].grad.is_contiguous(memory_format=LAST)
    groups = image.double().split(1) if per_sample else [image.double()]
    for found, group in zip(moments, groups, strict=True):
        var, mean = torch.var_mean(group, (0, 2, 3, 4), correction=0)
        torch.testing.assert_close(found.mean.double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.var.double(), var, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tracks", [True, False])
def test_running_moments_are_those_of_pytorch(tracks: bool) -> None:
    mine, theirs = BatchNorm(4), nn.BatchNorm3d(4)
    for layer in (mine, theirs):
        layer.track_running_stats = tracks
    for scale in (1, 3):
        image = scale * maps(4)
        assert is_slow(image, per_sample=False)
        torch.testing.assert_close(mine(image), theirs(image), rtol=1e-4, atol=1e-5)
    for (name, one), (_, other) in zip(mine.state_dict().items(), theirs.state_dict().items(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)
    torch.testing.assert_close(mine.eval()(image), theirs.eval()(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [BatchNorm(4), InstanceNorm(4)])
def test_a_map_without_a_spread_is_refused_as_by_pytorch(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match="more than 1"):
        layer(torch.ones(1, 4, 1, 1, 1).to(memory_format=LAST))


def test_other_maps_are_left_to_pytorch() -> None:
    assert not is_slow(maps(16), per_sample=True)
    assert not is_slow(maps(4).contiguous(), per_sample=True)
    assert not is_slow(maps(4, torch.float64), per_sample=True)
    assert not is_slow(torch.empty(0, 4, 2, 2, 2).to(memory_format=LAST), per_sample=False)
    assert not is_slow(maps(4).to("meta"), per_sample=False)
