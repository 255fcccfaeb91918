"""Size and cost of a network."""

from __future__ import annotations

from collections.abc import Sequence
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
    total = 0

    def count(module: nn.Conv3d | nn.ConvTranspose3d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        grid = inputs[0] if isinstance(module, nn.ConvTranspose3d) else output
        total += prod(grid.shape[2:]) * module.weight.numel()

    hooks = [
        module.register_forward_hook(count)
        for module in net.modules()
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
    ]
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    shapes_only = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    training = net.training
    try:
        image = torch.empty((1, net.in_channels, *shape), device="meta")
        with torch.no_grad():
            torch.func.functional_call(net.eval(), shapes_only, (image,))
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return total
