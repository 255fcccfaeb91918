"""Further decoders, heads of coarser levels and the discriminator."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from semivox.methods.cost import count_parameters, counted
from semivox.nets import NETS, build_net
from semivox.nets.blocks import Up, enlarge
from semivox.nets.heads import Discriminator, MultiDecoder, PyramidHeads

PUBLISHED = [name for name in NETS if name != "resunet"]  # which has tests of its own

ONE, TWO = ("trilinear",), ("trilinear", "nearest")


def count_macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.device("meta"), torch.no_grad(), counted(net.eval()) as found:
        net(torch.empty((1, net.in_channels, *shape)))
    assert not any(module._forward_hooks for module in net.modules())
    return sum(macs for macs, _ in found.values())


def make(others: tuple[str, ...], name: str = "vnet", width: int = 2, **options: object) -> MultiDecoder:
    values = {"in_channels": 1, "num_classes": 2, "width": width, "dropout": 0.0} | options
    return MultiDecoder(build_net(name, **values), others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("others", "parameters", "gmac"),
    [
        (ONE, 12_347_716, 87.83),
        (("nearest",), 12_347_716, 87.83),
        (TWO, 15_246_566, 135.55),
        ((), 9_448_866, 40.11),
    ],
)
def test_published_sizes(others: tuple[str, ...], parameters: int, gmac: float) -> None:
    with torch.device("meta"):
        net = make(others, width=16, dropout=0.5)
    assert count_parameters(net) == parameters
    assert count_macs(net, (112, 112, 80)) / 1e9 == pytest.approx(gmac, abs=0.005)


def upsampled(kind: str, image: torch.Tensor) -> torch.Tensor:
    """The grid-doubling step alone: a convolution that passes the centre voxel on."""
    up = Up(2, "none", kind).double()  # type: ignore[arg-type]
    convolution = up[1]
    assert isinstance(convolution, nn.Conv3d) and isinstance(up[-1], nn.ReLU)
    nn.init.zeros_(convolution.bias)
    nn.init.zeros_(convolution.weight)
    with torch.no_grad():
        convolution.weight[0, 0, 1, 1, 1] = 1
        return up(torch.cat([image, image], dim=1))


def test_nearest_repeats_voxels() -> None:
    image = torch.rand(1, 1, 2, 3, 4, dtype=torch.float64)
    expected = image
    for axis in (2, 3, 4):
        expected = expected.repeat_interleave(2, dim=axis)
    torch.testing.assert_close(upsampled("nearest", image), expected)


def test_trilinear_keeps_the_corners() -> None:
    """Aligned corners: output voxel i lies at i (n - 1) / (2 n - 1) of the input grid."""
    image = torch.rand(1, 1, 2, 3, 4, dtype=torch.float64)
    values, sides = image[0, 0].numpy(), image.shape[2:]
    expected = np.empty([2 * side for side in sides])
    for index in np.ndindex(*expected.shape):
        at = [i * (n - 1) / (2 * n - 1) for i, n in zip(index, sides, strict=True)]
        total = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            low = [min(int(a), n - 2) for a, n in zip(at, sides, strict=True)]
            weight = np.prod(
                [(a - lo) if c else 1 - (a - lo) for a, lo, c in zip(at, low, corner, strict=True)]
            )
            total += weight * values[tuple(lo + c for lo, c in zip(low, corner, strict=True))]
        expected[index] = total
    np.testing.assert_allclose(upsampled("trilinear", image)[0, 0].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_first_output_is_that_of_the_segmenter(name: str) -> None:
    net = make(TWO, name, num_classes=3).eval()
    image = torch.randn(1, 1, 16, 32, 16)
    outputs = net(image)
    assert [output.logits.shape for output in outputs] == [(1, 3, 16, 32, 16)] * 3
    torch.testing.assert_close(outputs[0].logits, net.first(image))
    torch.testing.assert_close(outputs[0].features, net.first.features(image))
    assert not torch.allclose(outputs[1].logits, outputs[2].logits)


def test_decoders_share_the_encoder_and_its_dropout() -> None:
    net = make(TWO, width=4, dropout=0.5)
    seen: list[torch.Tensor] = []
    for decoder in (net.first.decoder, *net.decoders):
        decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][-1]))
    calls: list[int] = []
    net.first.encoder.register_forward_hook(lambda *_: calls.append(1))
    outputs = net(torch.randn(2, 1, 32, 16, 16))
    assert len(calls) == 1 and len(seen) == 3 and all(torch.equal(seen[0], other) for other in seen)
    dropped = (seen[0].flatten(2) == 0).all(dim=2)
    assert 0.2 < dropped.float().mean() < 0.8
    silent = [(output.features.flatten(2) == 0).all(dim=2) for output in outputs]
    assert not all(torch.equal(silent[0], other) for other in silent[1:])


def test_features_are_those_that_the_head_saw() -> None:
    net = make(ONE, width=4, dropout=0.5)
    for output, head in zip(net(torch.randn(2, 1, 32, 16, 16)), (net.first.head, *net.heads), strict=True):
        torch.testing.assert_close(head[1](output.features), output.logits)


def test_initial_weights_of_the_further_decoders() -> None:
    torch.manual_seed(0)
    net = make(ONE, width=8)
    for module in net.decoders.modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 2000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def test_each_decoder_trains_itself_and_the_encoder() -> None:
    net = make(TWO)
    for index, output in enumerate(net(torch.randn(2, 1, 32, 16, 16))):
        found = torch.autograd.grad(
            output.logits.square().sum(), list(net.parameters()), retain_graph=True, allow_unused=True
        )
        trained = {name for (name, _), g in zip(net.named_parameters(), found, strict=True) if g is not None}
        own = (
            ("first.decoder", "first.head") if index == 0 else (f"decoders.{index - 1}", f"heads.{index - 1}")
        )
        expected = {name for name, _ in net.named_parameters() if name.startswith(("first.encoder", *own))}
        assert trained == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_levels_of_the_decoder(name: str) -> None:
    net = build_net(name, in_channels=2, num_classes=3, width=3).eval()
    image = torch.randn(2, 2, 32, 16, 48)
    maps = net.pyramid(image)
    assert [tuple(values.shape) for values in maps] == [
        (2, 3 * 2**level, 32 // 2**level, 16 // 2**level, 48 // 2**level) for level in range(4)
    ]
    torch.testing.assert_close(maps[0], net.features(image))


@pytest.mark.parametrize("name", PUBLISHED)
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


def test_dropout_of_the_unet_rises_with_depth() -> None:
    for dropout in (0.5, 0.0):
        net = build_net("unet3d", in_channels=1, num_classes=2, width=2, dropout=dropout)
        found = [module.p for module in net.modules() if isinstance(module, nn.Dropout3d)]
        shares = [0.0, 1.0, 0.6, 0.4, 0.0, 0.2]  # bottleneck, levels coarse to fine, head
        assert found == pytest.approx([share * dropout for share in shares])


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
