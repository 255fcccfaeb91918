"""Decoder levels of the networks, the heads on them, and what is particular to the 3D U-Net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from semivox.nets import NETS, build_net
from semivox.nets.blocks import enlarge
from semivox.nets.count import count_macs, count_parameters
from semivox.nets.pyramid import PyramidHeads


@pytest.mark.parametrize("name", NETS)
def test_levels_of_the_decoder(name: str) -> None:
    net = build_net(name, in_channels=2, num_classes=3, width=3).eval()
    image = torch.randn(2, 2, 32, 16, 48)
    maps = net.pyramid(image)
    assert [tuple(values.shape) for values in maps] == [
        (2, 3 * 2**level, 32 // 2**level, 16 // 2**level, 48 // 2**level) for level in range(4)
    ]
    torch.testing.assert_close(maps[0], net.features(image))


def test_level_of_the_published_vnet_at_half_resolution() -> None:
    with torch.device("meta"):
        net = build_net("vnet", in_channels=1, num_classes=2)
        assert net.pyramid(torch.empty(2, 1, 32, 32, 16))[1].shape == (2, 32, 16, 16, 8)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_coarser_levels_train_only_what_comes_before(name: str, level: int) -> None:
    net = build_net(name, in_channels=1, num_classes=2, width=2, dropout=0.0)
    maps = net.pyramid(torch.randn(2, 1, 16, 16, 32))
    maps[level].sum().backward()
    later = [f"decoder.stages.{4 - number}." for number in range(1, level + 1)]
    for key, parameter in net.named_parameters():
        if key.startswith(("head", *later)):
            assert parameter.grad is None, key
        elif key.startswith((f"decoder.stages.{3 - level}.", "encoder.levels.4")):
            assert parameter.grad is not None, key


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_enlarge_against_scipy(factor: int) -> None:
    values = np.random.default_rng(0).normal(size=(3, 2, 4))
    at = np.meshgrid(*[(np.arange(n * factor) + 0.5) / factor - 0.5 for n in values.shape], indexing="ij")
    expected = ndimage.map_coordinates(values, at, order=1, mode="nearest")
    found = enlarge(torch.from_numpy(values)[None, None], factor)[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_published_unet_with_heads() -> None:
    with torch.device("meta"):
        net = build_net("unet3d", in_channels=1, num_classes=2, norm="instance")
        heads = PyramidHeads(net)
    assert count_parameters(net) + count_parameters(heads) == 5_884_504
    assert not list(net.buffers()) and not list(heads.buffers())
    for shape, giga in (((112, 112, 80), 69.19), ((96, 96, 96), 61.00)):
        on_heads = sum(np.prod(shape) // 8**level * 16 * 2**level * 2 for level in (1, 2, 3))
        assert (count_macs(net, shape) + on_heads) / 1e9 == pytest.approx(giga, abs=0.005)


def test_cost_of_the_unet_by_hand() -> None:
    """A second count from the table of levels; upsampling and pooling cost nothing here."""
    voxels = [64 * 32 * 16 // 8**level for level in range(5)]
    width = 4
    channels = [width * 2**level for level in range(5)]
    total = voxels[0] * width * 5  # head
    for level in range(5):
        inputs = 3 if level == 0 else channels[level - 1]
        total += voxels[level] * 27 * (inputs * channels[level] + channels[level] ** 2)
    for level in range(4):
        inputs = channels[level] + channels[level + 1]
        total += voxels[level] * 27 * (inputs * channels[level] + channels[level] ** 2)
    with torch.device("meta"):
        net = build_net("unet3d", in_channels=3, num_classes=5, width=width)
    assert count_macs(net, (64, 32, 16)) == total


def test_dropout_of_the_unet_rises_with_depth() -> None:
    net = build_net("unet3d", in_channels=1, num_classes=2, width=2)
    found = [module.p for module in net.modules() if isinstance(module, nn.Dropout3d)]
    assert found == pytest.approx([0.0, 0.5, 0.3, 0.2, 0.0, 0.1])  # bottleneck, levels coarse to fine, head
    assert all(
        module.p == 0
        for module in build_net("unet3d", in_channels=1, num_classes=2, width=2, dropout=0.0).modules()
        if isinstance(module, nn.Dropout3d)
    )


def test_next_level_of_the_unet_sees_what_its_head_sees() -> None:
    """A level's input is the skip and the enlarged coarser level, some channels of which are dropped."""
    net = build_net("unet3d", in_channels=1, num_classes=2, width=8, norm="instance")
    inputs: list[torch.Tensor] = []
    for stage in net.decoder.stages:
        stage.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    maps = net.pyramid(torch.randn(1, 1, 32, 32, 32))
    for level, given in zip((3, 2, 1), inputs[1:], strict=True):
        skip = 8 * 2 ** (level - 1)
        torch.testing.assert_close(given[:, skip:], enlarge(maps[level], 2))
        assert bool((maps[level].flatten(2).abs().sum(dim=2) == 0).any()), level


def test_skips_of_the_unet_are_concatenated() -> None:
    """A first convolution that reads the skip alone makes the finest level independent of the deeper ones."""
    net = build_net("unet3d", in_channels=1, num_classes=2, width=2, norm="none").eval()
    first = net.decoder.stages[-1][0]
    assert first.in_channels == 2 + 4
    with torch.no_grad():
        first.weight[:, 2:] = 0
        image = torch.randn(1, 1, 16, 16, 32)
        before = net.features(image)
        for parameter in net.encoder.levels[1].parameters():
            parameter.mul_(3)
        assert torch.equal(net.features(image), before)
        first.weight[:, 2:] = 1
        assert not torch.equal(net.features(image), before)


def test_heads() -> None:
    torch.manual_seed(0)
    net = build_net("vnet", in_channels=1, num_classes=3, width=2).eval()
    heads = PyramidHeads(net, dropout=0.5)
    assert [head[0].p for head in heads.heads] == pytest.approx([0.2, 0.3, 0.5])
    _, *coarser = net.pyramid(torch.randn(2, 1, 16, 32, 16))
    heads.eval()
    for level, (logits, head) in enumerate(zip(heads(coarser), heads.heads, strict=True), start=1):
        assert logits.shape == (2, 3, 16, 32, 16)
        conv = head[1]
        small = torch.einsum("kc,bcxyz->bkxyz", conv.weight.flatten(1), coarser[level - 1])
        small = small + conv.bias.view(1, -1, 1, 1, 1)
        torch.testing.assert_close(logits, enlarge(small, 2**level))
