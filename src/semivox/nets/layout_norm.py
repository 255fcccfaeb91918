"""Batch and instance normalisation of channels-last maps with few channels on a CPU, at the speed of memory.

PyTorch's kernels take their vectors from the channels of one voxel: with 8 channels its backward pass is ten
times as slow as with 16. Neighbouring voxels lie beside each other in memory, so that k voxels of C channels
are one voxel of k * C channels to the same kernels; the moments of the k groups are merged afterwards.
"""

from __future__ import annotations

from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_FEW = 16  # as many channels fill a vector
_LANES = 64


def is_slow(image: Tensor, *, per_sample: bool) -> bool:
    """Whether PyTorch would be slow with this map and `normalise` takes it instead."""
    channels, together = image.shape[1], image[:1] if per_sample else image
    return (
        image.device.type == "cpu"
        and channels < _FEW
        and together.numel() > channels
        and image.dtype in (torch.float32, torch.bfloat16)
        and image.is_contiguous(memory_format=torch.channels_last_3d)
    )


class Moments(NamedTuple):
    """Of each channel (C,): mean and variance (divided by n, the number of values)."""

    mean: Tensor
    var: Tensor


def normalise(
    image: Tensor, weight: Tensor | None, bias: Tensor | None, *, per_sample: bool, eps: float
) -> tuple[Tensor, list[Moments]]:
    """Give each channel mean 0 and variance 1, over the batch or over each sample, then scale and shift it.

    Args:
        image: (B, C, X, Y, Z), see `is_slow`.
        weight, bias: (C,) float32.
        per_sample: instance instead of batch normalisation.
        eps: added to the variance.

    Returns:
        The same shape, type and layout; and the moments, of the batch or of each sample.
    """
    output, *found = _Normalise.apply(image, weight, bias, per_sample, eps)  # type: ignore[no-untyped-call]
    return output, [Moments(*pair) for pair in zip(found[::2], found[1::2], strict=True)]


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor | None, bias: Tensor | None, per_sample: bool, eps: float
    ) -> tuple[Tensor, ...]:
        output, found, saved = torch.empty_like(image), [], []
        for source, target in zip(_groups(image, per_sample), _groups(output, per_sample), strict=True):
            mean, var = _moments(source, image.shape[1])
            inverse = (var + eps).rsqrt()
            scale = inverse if weight is None else inverse * weight
            _affine(source, scale, (0 if bias is None else bias) - mean * scale, target)
            found += [mean, var]
            saved += [mean, inverse, scale]
        ctx.per_sample, ctx.has_weight, ctx.has_bias = per_sample, weight is not None, bias is not None
        ctx.save_for_backward(image, *saved)
        ctx.mark_non_differentiable(*found)
        return output, *found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        image, *saved = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        result, term = torch.empty_like(image), torch.empty_like(image)
        groups = (_groups(one, ctx.per_sample) for one in (grad, image, result, term))
        weight_grad = bias_grad = torch.zeros_like(saved[0])
        for index, (slope, source, target, part) in enumerate(zip(*groups, strict=True)):
            mean, inverse, scale = saved[3 * index : 3 * index + 3]
            along, total = _products(slope, source, mean, inverse)
            weight_grad, bias_grad = weight_grad + along, bias_grad + total
            count = source.numel() // len(mean)
            factor = -scale * inverse * along / count
            _affine(slope, scale, -scale * total / count - factor * mean, target)
            _affine(source, factor, torch.zeros_like(factor), part)
        result += term
        return (
            result,
            weight_grad if ctx.has_weight else None,
            bias_grad if ctx.has_bias else None,
            None,
            None,
        )


def _groups(image: Tensor, per_sample: bool) -> list[Tensor]:
    """What is normalised together, each as a view (1, k * C, voxels / k, 1) in channels-last memory."""
    channels, views = image.shape[1], []
    for part in torch.split(image, 1) if per_sample else [image]:
        fitting = 1 << (max(1, _LANES // channels).bit_length() - 1)
        together = gcd(part.numel() // channels, fitting)
        flat = part.permute(0, 2, 3, 4, 1).view(1, -1, 1, together * channels)
        views.append(flat.permute(0, 3, 1, 2))
    return views


def _moments(view: Tensor, channels: int) -> Moments:
    """Merge the moments of the k groups: their variances, and what their means differ."""
    mean, var = torch.zeros(2, view.shape[1])  # running moments in single precision: so become the results
    rows = torch.batch_norm_update_stats(view, mean, var, momentum=0.0)
    means, variances = (row.view(-1, channels) for row in rows)
    mean = means.mean(0)
    return Moments(mean, variances.mean(0) + (means - mean).square().mean(0))


def _affine(view: Tensor, scale: Tensor, shift: Tensor, target: Tensor) -> None:
    """Write scale * view + shift into `target`: batch normalisation with mean 0 and variance 1."""
    times = view.shape[1] // len(scale)
    zeros, none = torch.zeros(view.shape[1]), torch.empty(0)
    torch.native_batch_norm(
        view,
        scale.repeat(times),
        shift.repeat(times),
        zeros,
        torch.ones_like(zeros),
        training=False,
        momentum=0.0,
        eps=0.0,
        out=(target, none, torch.empty(0)),
    )


def _products(grad: Tensor, view: Tensor, mean: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the voxels of grad * (view - mean) * inverse, and of grad, each (C,)."""
    times = view.shape[1] // len(mean)
    moments = (mean.repeat(times), inverse.repeat(times))
    _, along, total = torch.ops.aten.native_batch_norm_backward(
        grad, view, torch.ones_like(moments[0]), None, None, *moments, True, 0.0, [False, True, True]
    )
    return along.view(times, -1).sum(0), total.view(times, -1).sum(0)
