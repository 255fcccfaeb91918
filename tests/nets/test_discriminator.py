"""The discriminator of distance maps: published size and cost, a second implementation, dropout."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semivox.nets.count import count_parameters
from semivox.nets.discriminator import Discriminator


def test_published_size_cost_and_grids() -> None:
    with torch.device("meta"):
        net = Discriminator(map_channels=1, image_channels=1)
    assert count_parameters(net) == 11_020_290
    grids: list[tuple[int, ...]] = []
    macs: list[int] = []

    def count(module: nn.Conv3d, inputs: object, output: torch.Tensor) -> None:
        grids.append(tuple(output.shape[1:]))
        macs.append(prod(output.shape[2:]) * module.weight.numel())

    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(count)
    patch = torch.empty(1, 1, 112, 112, 80, device="meta")
    assert net(patch, patch).shape == (1, 2)
    assert grids == [(64, 56, 56, 40)] * 2 + [(128, 28, 28, 20), (256, 14, 14, 10), (512, 7, 7, 5)]
    assert sum(macs) / 1e9 == pytest.approx(15.414, abs=5e-4)


def test_against_a_second_implementation() -> None:
    torch.manual_seed(0)
    net = Discriminator(map_channels=2, image_channels=3, width=2).eval()
    distance, image = torch.randn(3, 2, 32, 16, 48), torch.randn(3, 3, 32, 16, 48)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv3d)]
    assert [c.out_channels for c in convolutions] == [2, 2, 4, 8, 16]

    def convolve(x: torch.Tensor, layer: nn.Conv3d) -> torch.Tensor:
        return F.conv3d(x, layer.weight, layer.bias, stride=2, padding=1)

    x = convolve(distance, convolutions[0]) + convolve(image, convolutions[1])
    for layer in convolutions[2:]:
        x = convolve(torch.where(x > 0, x, 0.2 * x), layer)
    x = torch.where(x > 0, x, 0.2 * x).mean(dim=(2, 3, 4))
    expected = x @ net.verdict.weight.T + net.verdict.bias
    torch.testing.assert_close(net(distance, image), expected)


def test_dropout_and_empty_batches() -> None:
    net = Discriminator(map_channels=1, image_channels=1, width=4)
    patch = torch.randn(2, 1, 16, 16, 16)
    assert not torch.equal(net(patch, patch), net(patch, patch))
    assert sum(isinstance(module, nn.Dropout3d) for module in net.modules()) == 3
    assert net(patch[:0], patch[:0]).shape == (0, 2)
    net.eval()
    assert torch.equal(net(patch, patch), net(patch, patch))
