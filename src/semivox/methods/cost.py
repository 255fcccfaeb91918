"""Size and cost of a method, counted without computing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import lcm, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semivox.methods import create
from semivox.methods.base import Batch, Method, Step
from semivox.nets import NetFactory
from semivox.nets.network import Network


class Count(NamedTuple):
    """Size of some networks, and what one pass of a patch through each of them costs."""

    parameters: int
    macs: int  # multiply-accumulates of convolutions and linear layers, transposed ones at each input voxel
    printed_macs: int  # as published tables count, see `counted`


class Cost(NamedTuple):
    """Both conventions of the literature."""

    predicting: Count  # what prediction needs
    step: Count  # all networks of a training step, each once: teachers, further decoders and critics too


def without_memory(name: str, options: Mapping[str, Any], net: NetFactory) -> Method:
    """Build a method whose weights take no memory, to ask it about sizes."""
    with torch.device("meta"), torch.random.fork_rng([]):
        return create(name, options, net)


def patch_divisor(method: nn.Module, others: tuple[int, int, int] = (1, 1, 1)) -> tuple[int, int, int]:
    """Return what a patch's sides have to be multiples of, for all networks of a method and for `others`."""
    found: list[Any] = [part.divisor for part in method.modules() if hasattr(part, "divisor")]
    x, y, z = (lcm(*axis) for axis in zip(others, *found, strict=True))
    return x, y, z


def rounded(method: nn.Module, patch: Sequence[int]) -> list[int]:
    """Round the sides of a patch up to what all networks of a method can divide, as training does."""
    return [-(-side // part) * part for side, part in zip(patch, patch_divisor(method), strict=True)]


def check_patch(method: Method, patch: Sequence[int], batch: int, *, planned: bool = True) -> None:
    """Refuse a patch that leaves some network of a method, in training, a single voxel to normalise.

    Networks that follow the plan are left out if they were not built with one, that is, not `planned`.
    """
    sides = rounded(method, patch)
    for net in method.modules():
        if isinstance(net, Network) and (planned or not net.follows_plan):
            net.check_patch(sides, batch)


def method_cost(name: str, options: Mapping[str, Any], net: NetFactory, patch: Sequence[int]) -> Cost:
    """Build a method without memory for its weights and count, for a patch rounded up as training does."""
    with torch.device("meta"), torch.random.fork_rng([]):
        method = without_memory(name, options, net).eval()
        sides = rounded(method, patch)
        image = torch.empty((1, net.in_channels, *sides))
        label = torch.empty((1, *sides), dtype=torch.int64)
        with torch.no_grad(), counted(method) as found:
            method.predict(image)
            predicting = _summed(found.values(), sum(map(count_parameters, found)))
            method.predict_members(image)
            if method.critic_parameters():
                step = Step(0, 1, torch.Generator("cpu"))
                method.critic_losses(Batch(image, label), Batch(image[:0], None), step)
        return Cost(predicting, _summed(found.values(), count_parameters(method)))


@contextmanager
def counted(module: nn.Module) -> Iterator[dict[nn.Module, tuple[int, int]]]:
    """Yield a table that fills with (MACs, printed MACs) of each layer of `module` at its first call.

    MACs: a convolution costs its weights once for each output voxel, a transposed one once for each input
    voxel, a linear layer once for each row; products of activations (as in attention), bias,
    normalisation and activation are not counted. The published tables print more: they take transposed
    convolutions at output voxels, too, and add one for a bias and two for a normalisation, for each value of
    the output (so the V-Net has 47.10 G instead of 40.11 G for 112x112x80).
    """
    found: dict[nn.Module, tuple[int, int]] = {}

    def count(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if layer in found:
            return
        if isinstance(layer, nn.BatchNorm3d | nn.InstanceNorm3d | nn.GroupNorm):
            found[layer] = 0, 2 * output.numel()
            return
        transposed = isinstance(layer, nn.ConvTranspose3d)
        weights, voxels = layer.weight.numel(), output.numel() // layer.weight.shape[int(transposed)]
        grid = prod(inputs[0].shape[2:]) * len(output) if transposed else voxels
        bias = 0 if layer.bias is None else output.numel()
        found[layer] = weights * grid, weights * voxels + bias

    kinds = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear, nn.BatchNorm3d, nn.InstanceNorm3d, nn.GroupNorm)
    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, kinds)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _summed(costs: Any, parameters: int) -> Count:
    macs, printed = zip(*costs, strict=True)
    return Count(parameters, sum(macs), sum(printed))


def count_parameters(module: nn.Module) -> int:
    """Count the learned scalars."""
    return sum(parameter.numel() for parameter in module.parameters())
