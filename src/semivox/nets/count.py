"""Size and cost of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn

from semivox.nets.blocks import Segmenter
from semivox.nets.multi_decoder import MultiDecoder


def count_parameters(net: nn.Module) -> int:
    """Count the learned scalars."""
    return sum(parameter.numel() for parameter in net.parameters())


def count_macs(net: Segmenter | MultiDecoder, shape: Sequence[int]) -> int:
    """Count the multiply-accumulates of the convolutions for one patch; nothing is computed.

    A convolution costs its weights once for each output voxel, a transposed one once for each input voxel.
    Bias, normalisation and activation are not counted.

    Args:
        net: a network on any device.
        shape: the patch (X, Y, Z) in voxels.
    """
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    shapes_only = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    training = net.training
    try:
        image = torch.empty((1, net.in_channels, *shape), device="meta")
        with torch.no_grad(), counted_macs(net) as counts:
            torch.func.functional_call(net.eval(), shapes_only, (image,))
    finally:
        net.train(training)
    return sum(counts)


@contextmanager
def counted_macs(module: nn.Module) -> Iterator[list[int]]:
    """Give a list that grows by the multiply-accumulates of each convolution of `module` that is called."""
    counts: list[int] = []

    def count(layer: nn.Conv3d | nn.ConvTranspose3d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        grid = inputs[0] if isinstance(layer, nn.ConvTranspose3d) else output
        counts.append(grid.shape[0] * prod(grid.shape[2:]) * layer.weight.numel())

    hooks = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()
