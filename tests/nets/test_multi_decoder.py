"""Further decoders behind one encoder: published sizes and costs, ways of up-sampling, dropout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from semivox.nets import NETS, build_net
from semivox.nets.blocks import Decoder, Up
from semivox.nets.count import count_macs, count_parameters
from semivox.nets.multi_decoder import MultiDecoder

ONE, TWO = ("trilinear",), ("trilinear", "nearest")


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


@pytest.mark.parametrize(
    ("kind", "parameters"), [("transposed", 2_071_970), ("trilinear", 2_898_850), ("nearest", 2_898_850)]
)
def test_parameters_of_a_decoder(kind: str, parameters: int) -> None:
    with torch.device("meta"):
        decoder = Decoder(16, "batch", up=kind)  # type: ignore[arg-type]
    assert count_parameters(decoder) + 16 * 2 + 2 == parameters
    taps = (27 - 8) * (256 * 128 + 128 * 64 + 64 * 32 + 32 * 16)
    assert parameters - 2_071_970 == (0 if kind == "transposed" else taps)


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


@pytest.mark.parametrize("name", NETS)
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
