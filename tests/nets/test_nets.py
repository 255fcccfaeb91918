"""Networks: published sizes and costs, shapes, initial weights, dropout and refusals."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from semivox.errors import UserError
from semivox.methods.cost import count_parameters, counted
from semivox.nets import NETS, NetFactory, Triple, build_net
from semivox.nets.blocks import to_blocks, to_voxels
from semivox.nets.cpu import Conv

PUBLISHED = [name for name in NETS if name != "resunet"]  # which has tests of its own

SIZES = {  # parameters with batch normalisation, with instance normalisation, MAC for 112x112x80 and 96^3
    "vnet": (9_448_866, 9_443_266, 40_108_687_360, 35_361_128_448),
    "resnet34": (17_930_354, 17_920_018, 72_735_129_600, None),
    "unet3d": (5_886_994, 5_884_050, 69_178_654_720, 60_990_160_896),
}


def count_macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.device("meta"), torch.no_grad(), counted(net.eval()) as found:
        net(torch.empty((1, net.in_channels, *shape)))
    assert not any(module._forward_hooks for module in net.modules())
    return sum(macs for macs, _ in found.values())


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return build_net(name, **{"in_channels": 1, "num_classes": 2, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(name: str) -> None:
    batch, instance, _, _ = SIZES[name]
    assert count_parameters(on_meta(name)) == batch
    assert count_parameters(on_meta(name, norm="instance")) == instance
    assert count_parameters(on_meta(name, norm="none")) == instance


def test_encoder_and_decoder_of_the_vnet() -> None:
    net = on_meta("vnet")
    assert count_parameters(net.encoder) == 7_376_896
    assert count_parameters(net.decoder) + count_parameters(net.head) == 2_071_970
    assert sum(buffer.numel() for name, buffer in net.named_buffers() if "running" in name) == 5_600
    assert count_parameters(on_meta("resnet34").encoder) == 15_858_384


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cost(name: str) -> None:
    _, _, macs, macs_cube = SIZES[name]
    net = on_meta(name)
    assert count_macs(net, (112, 112, 80)) == macs
    if macs_cube is not None:
        assert count_macs(net, (96, 96, 96)) == macs_cube


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize(("channels", "classes", "width"), [(1, 2, 2), (4, 4, 3)])
def test_shapes(name: str, norm: str, channels: int, classes: int, width: int) -> None:
    net = build_net(name, in_channels=channels, num_classes=classes, width=width, norm=norm)
    image = torch.randn(2, channels, 32, 16, 16)
    features = net.features(image)
    assert features.shape == (2, width, 32, 16, 16)
    assert net.head(features).shape == net(image).shape == (2, classes, 32, 16, 16)
    net(image).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


@pytest.mark.parametrize(("name", "sites"), [("vnet", 2), ("resnet34", 1), ("unet3d", 4)])
def test_dropout_sites(name: str, sites: int) -> None:
    net = build_net(name, in_channels=1, num_classes=2, width=4, dropout=0.5)
    active = [module for module in net.modules() if isinstance(module, nn.Dropout3d) and module.p > 0]
    assert len(active) == sites
    image = torch.randn(2, 1, 32, 32, 16)
    differ = not torch.equal(net.features(image), net.features(image))
    assert differ == (name != "resnet34")  # the others have dropout before the finest level as well
    features = net.features(image).repeat(16, 1, 1, 1, 1)  # enough channels for any probability to show
    assert not torch.equal(net.head(features), net.head(features))


def test_bottleneck_dropout_drops_whole_channels() -> None:
    net = build_net("vnet", in_channels=1, num_classes=2, width=4, dropout=0.5)
    seen: list[torch.Tensor] = []
    net.decoder.ups[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    levels: list[torch.Tensor] = []
    net.encoder.register_forward_hook(lambda _, __, output: levels.extend(output))
    net(torch.randn(2, 1, 32, 32, 32))
    dropped, kept = seen[0].flatten(2), levels[-1].flatten(2)
    zero = dropped.abs().sum(dim=2) == 0
    assert 0.2 < zero.float().mean() < 0.8
    torch.testing.assert_close(dropped[~zero], 2.0 * kept[~zero])


def test_skips_are_added() -> None:
    """With a silent decoder path the finest stage sees the first encoder level alone."""
    net = build_net("vnet", in_channels=1, num_classes=2, width=2, norm="none").eval()
    last = net.decoder.ups[-1][0]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    image = torch.randn(1, 1, 16, 16, 32)
    torch.testing.assert_close(net.features(image), net.decoder.stages[-1](net.encoder(image)[0]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_initial_weights(name: str) -> None:
    torch.manual_seed(0)
    net = build_net(name, in_channels=1, num_classes=2, width=8)
    checked = 0
    for module in net.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d) and module.weight.numel() > 2000:
            fan_in = module.weight[0].numel()  # torch's convention, also for transposed convolutions
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.1)
            checked += 1
        if isinstance(module, nn.BatchNorm3d):
            assert bool((module.weight == 1).all()) and bool((module.bias == 0).all())
    assert checked > 10


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("shape", [(24, 16, 16), (16, 16, 40), (8, 16, 16)])
def test_refuses_sides_not_divisible_by_16(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="multiples of 16 x 16 x 16"):
        build_net(name, in_channels=1, num_classes=2, width=2)(torch.zeros(2, 1, *shape))


def test_refuses_channels() -> None:
    with pytest.raises(UserError, match="channels"):
        build_net("vnet", in_channels=4, num_classes=2, width=2)(torch.zeros(1, 1, 16, 16, 16))


def test_refuses_a_single_bottleneck_voxel_where_statistics_need_two() -> None:
    one, two = torch.randn(1, 1, 16, 16, 16), torch.randn(2, 1, 16, 16, 16)
    batch = build_net("vnet", in_channels=1, num_classes=2, width=2)
    with pytest.raises(UserError, match="too small"):
        batch(one)
    batch(two)
    batch.eval()(one)
    with pytest.raises(UserError, match="too small"):
        build_net("vnet", in_channels=1, num_classes=2, width=2, norm="instance").eval()(two)


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="did you mean resnet34"):
        build_net("resnet3", in_channels=1, num_classes=2)
    with pytest.raises(UserError, match="batch, instance, group, none"):
        build_net("vnet", in_channels=1, num_classes=2, norm="layer")


def test_factory_overrides() -> None:
    factory = NetFactory(in_channels=2, num_classes=3, width=2, norm="group", dropout=0.0)
    assert factory("vnet").head[-1].out_channels == 3
    assert factory("vnet", num_classes=1).head[-1].out_channels == 1
    assert factory("vnet").norm == "group"


@pytest.mark.parametrize("first", [1, 2, 3])
def test_bfloat16_gradient_of_short_maps(first: int) -> None:
    """Some CPU kernels give infinite gradients for a first side of 2; ours must agree with float32."""
    torch.manual_seed(0)
    conv = Conv(16, 16)
    image, weight = torch.randn(4, 16, first, 3, 3), torch.randn(4, 16, first, 3, 3)
    found = []
    for half in (False, True):
        scrap = torch.full((2_000_000,), float("nan"))  # so that memory read before it is written shows
        del scrap
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = conv(image)
        found.append(torch.autograd.grad((output.float() * weight).sum(), conv.weight)[0])
    assert (found[0] - found[1]).norm() < 0.02 * found[0].norm()


THICK = (2, 2, 1), (2, 2, 2), (2, 2, 2)  # slices of 6.5 mm, pixels of 1.6 mm


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_plan_of_thick_slices(name: str) -> None:
    """Slices are halved twice, pixels three times; the first level does not mix slices."""
    plan = {"in_channels": 1, "num_classes": 2, "strides": THICK}
    along = build_net(name, width=2, along_plan=True, **plan)
    assert along.divisor == (8, 8, 4)
    image = torch.randn(2, 1, 24, 16, 12)
    sides = [tuple(values.shape[2:]) for values in along.pyramid(image)]
    assert sides == [(24, 16, 12), (12, 8, 12), (6, 4, 6)]
    assert along(image).shape == (2, 2, 24, 16, 12)
    first = next(module for module in along.modules() if isinstance(module, nn.Conv3d))
    assert first.kernel_size[2] == 1 < first.kernel_size[0]
    with torch.no_grad():
        moved = image.clone()
        moved[..., 5] += 1
        changed = along.eval().encoder(moved)[0] != along.encoder(image)[0]
    assert changed[..., 5].any() and not changed[..., [*range(5), *range(6, 12)]].any()
    by_default = on_meta(name, width=16, strides=THICK)
    assert count_parameters(by_default) == SIZES[name][0] and by_default.divisor == (16, 16, 16)


@pytest.mark.parametrize("name", PUBLISHED)
def test_features_of_blocks_are_given_for_each_voxel(name: str) -> None:
    """With a stem, all but the last layer works on the coarser grid, on blocks of voxels as channels."""
    plan = {"in_channels": 2, "num_classes": 3, "stem": (2, 2, 1), "strides": ((2, 2, 2), (2, 2, 1))}
    net = build_net(name, width=4, along_plan=True, dropout=0.0, **plan).eval()
    assert net.divisor == (8, 8, 2) and net.factor(1) == (4, 4, 2)
    image = torch.randn(2, 2, 16, 24, 4)
    assert [tuple(values.shape[2:]) for values in net.encoder(image)] == [(8, 12, 4), (4, 6, 2), (2, 3, 2)]
    maps = net.pyramid(image)
    assert [tuple(values.shape[1:]) for values in maps] == [(4, 16, 24, 4), (8, 4, 6, 2)]
    torch.testing.assert_close(net(image), net.head(net.features(image)))
    blocks = build_net(
        name, width=4, along_plan=True, dropout=0.0, **plan | {"in_channels": 8, "stem": (1, 1, 1)}
    )
    blocks.eval().load_state_dict({k: v for k, v in net.state_dict().items() if "spread" not in k})
    features = net.decoder.spread(blocks.features(to_blocks(image, (2, 2, 1))))
    torch.testing.assert_close(maps[0], to_voxels(features, (2, 2, 1)))


@pytest.mark.parametrize(
    ("stem", "strides", "divisor"),
    [((2, 2, 1), THICK, (16, 16, 4)), ((2, 2, 2), ((2, 2, 2),) * 5, (32, 32, 32))],
)
def test_strides_of_the_plan(stem: Triple, strides: tuple[Triple, ...], divisor: Triple) -> None:
    """A stem comes before them; more strides than the published four are left out."""
    sizes = {"in_channels": 1, "num_classes": 2, "width": 2, "along_plan": True}
    assert build_net("vnet", stem=stem, strides=strides, **sizes).divisor == divisor
