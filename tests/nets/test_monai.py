"""Networks of MONAI: built from the plan, on blocks of its stem, and what is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from monai.networks import nets
from torch import nn

from semivox.errors import UserError
from semivox.inference.windows import room, tiling
from semivox.methods.cost import counted, patch_divisor
from semivox.nets import SEGMENTERS, NetFactory, build_net
from semivox.nets.monai import MonaiNet, scales_of
from semivox.settings import PredictConfig

STRIDES = ((2, 2, 2), (2, 2, 1))
SMALL_SWIN = {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
SMALL_UNETR = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 24, "num_heads": 2}


def make(name: str, **changes: Any) -> Any:
    values = {"in_channels": 1, "num_classes": 3, "width": 4, "strides": STRIDES, **changes}
    return build_net(f"monai:{name}", **values)


def test_it_is_the_network_of_monai_with_levels_from_the_plan() -> None:
    torch.manual_seed(0)
    net = make("UNet", in_channels=2, options={"num_res_units": 1}).eval()
    torch.manual_seed(0)
    own = nets.UNet(3, 2, 3, channels=(4, 8, 16), strides=STRIDES, num_res_units=1).eval()
    image = torch.randn(2, 2, 16, 12, 6)
    torch.testing.assert_close(net(image), own(image), rtol=0, atol=0)
    assert net.divisor == (4, 4, 2) and len(net.deep(image)) == 1


def test_thin_slices_get_thin_kernels() -> None:
    net = make("DynUNet", strides=((2, 2, 1), (2, 2, 2)))
    first = next(layer for layer in net.modules() if isinstance(layer, nn.Conv3d))
    assert first.kernel_size == (3, 3, 1) and first.stride == (1, 1, 1) and net.divisor == (4, 4, 2)


def test_blocks_of_the_stem_become_channels_and_voxels_again() -> None:
    stem = (2, 1, 3)
    net = make("UNet", stem=stem).eval()
    image = torch.randn(1, 1, 16, 8, 12)
    blocks = torch.zeros(1, 6, 8, 8, 4)
    for place, (x, y, z) in enumerate(product(range(2), range(1), range(3))):
        blocks[:, place] = image[:, 0, x::2, y::1, z::3]
    values, result = net.net(blocks), net(image)
    assert net.divisor == (8, 4, 6) and result.shape == (1, 3, 16, 8, 12)
    for place, (x, y, z) in enumerate(product(range(2), range(1), range(3))):
        torch.testing.assert_close(result[:, :, x::2, y::1, z::3], values[:, place::6])


@pytest.mark.parametrize("stem", [(1, 1, 1), (2, 2, 1)])
def test_features_of_each_voxel_and_their_head(stem: tuple[int, int, int]) -> None:
    net = make("SegResNet", features=True, stem=stem, width=5, options={"init_filters": 8}).eval()
    image = torch.randn(1, 1, 16, 16, 8)
    features = net.features(image)
    assert features.shape == (1, 5, 16, 16, 8)
    torch.testing.assert_close(net.head(features), net(image))


def test_the_divisor_of_a_transformer_and_the_patch_that_is_too_small_for_it() -> None:
    net = make("SwinUNETR", options=SMALL_SWIN)
    assert net.divisor == (32, 32, 32) and patch_divisor(net, (1, 1, 48)) == (32, 32, 96)
    with pytest.raises(UserError, match=r"32 x 32 x 32: Expected more than 1 spatial element"):
        net(torch.zeros(1, 1, 32, 32, 32))
    with pytest.raises(UserError, match="multiples of 32 x 32 x 32"):
        net(torch.zeros(1, 1, 64, 48, 32))
    assert net.eval()(torch.zeros(1, 1, 64, 32, 32)).shape == (1, 3, 64, 32, 32)


def test_a_network_of_one_size_gets_it_from_the_plan_and_takes_no_other() -> None:
    net = make("UNETR", patch=(30, 16, 40), options=SMALL_UNETR, stem=(1, 1, 2)).eval()
    assert net.divisor == (32, 16, 64) and net.one_size
    assert net(torch.zeros(1, 1, 32, 16, 64)).shape == (1, 3, 32, 16, 64)
    with pytest.raises(UserError, match="64 x 16 x 64: it takes 32 x 16 x 64 only"):
        net(torch.zeros(1, 1, 64, 16, 64))
    whole, patch = PredictConfig(window="whole"), net.divisor
    space = room(nn.ModuleList([net]), torch.device("cpu"))
    for shape in ((60, 16, 64), (20, 10, 50)):
        assert tiling(shape, patch, whole, space, patch_divisor(net))[0] == patch


def test_scales_that_a_network_returns() -> None:
    net = make("SegResNetDS", strides=((2, 2, 2),) * 3, options={"init_filters": 8, "dsdepth": 2})
    image = torch.randn(1, 1, 16, 16, 16)
    assert net.scales == 2
    assert [tuple(one.shape[2:]) for one in net.deep(image)] == [(16, 16, 16), (8, 8, 8)]
    torch.testing.assert_close(net.eval()(image), net.deep(image)[0])
    fine, coarse = torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 2, 2, 2, 2)
    assert len(scales_of(torch.zeros(1, 3, 2, 4, 4, 4))) == 3
    assert not scales_of([fine, fine]) and not scales_of([coarse, fine]) and not scales_of((fine, None))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SwinUNETT", {}, "did you mean SwinUNETR"),
        ("SwinUNTER", {}, "did you mean SwinUNETR"),
        ("DenseNet121", {}, r"cannot be used with net.options={}(.|\n)*it returns Tensor \[\(1, 3\)\]"),
        ("VISTA3D", {}, "cannot be used"),
        ("PatchDiscriminator", {}, r"cannot be used(.|\n)*or choose AttentionUnet"),
        ("SPADENet", {}, "cannot be used"),
        ("SwinUNETR", {"feature_size": "large"}, r"cannot be used with net.options=.*large"),
        ("SwinUNETR", {"num_heads": [5, 5, 5, 5]}, "cannot be used with net.options"),
        ("SegResNet", {"init_filter": 8}, "did you mean init_filters"),
        ("SegResNet", {"out_channels": 8}, "comes from the data set"),
        ("FlexibleUNet", {}, "cannot be used with net.options={}(.|\\n)*argument: 'backbone'"),
        ("Unet", {"num_res_units": -1, "norm": "none at all"}, "monai:Unet cannot be used with net.options"),
        ("SegResNet", {"init_filters": 9}, "monai:SegResNet cannot be used with net.options"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(name, options=options)


def test_the_classes_that_are_suggested_are_such_networks() -> None:
    """Those that need a package or an option of their own apart; the large one is tried above, small."""
    assert all(hasattr(nets, name) for name in SEGMENTERS)
    for name in sorted(set(SEGMENTERS) - {"DAF3D", "FlexibleUNet", "UNETR"}):
        with torch.device("meta"):
            net = make(name)
        assert all(part in (1, 2, 4, 8, 16, 32) for part in net.divisor), name


@pytest.mark.parametrize("name", ["swin_unetr", "SwinUNETR", "MONAI:Swin-UNETR"])
def test_a_class_of_monai_without_its_prefix_is_suggested_with_it(name: str) -> None:
    with pytest.raises(UserError, match="did you mean monai:SwinUNETR"):
        build_net(name, in_channels=1, num_classes=2)


def test_weights_without_memory_and_the_cost_of_linear_layers() -> None:
    with torch.device("meta"), torch.no_grad():
        net = NetFactory(1, 2, options=SMALL_SWIN)("monai:SwinUNETR").eval()
        assert isinstance(net, MonaiNet) and all(part.is_meta for part in net.parameters())
        with counted(net) as found:
            net(torch.empty(1, 1, 64, 32, 32))
    shapes = {"qkv": (12, 36), "proj": (12, 12)}  # of the first stage, on windows of 7 x 7 x 7
    windows = 5 * 3 * 3 * 7**3  # 32 x 16 x 16 positions, padded to multiples of 7
    attention = net.net.swinViT.layers1[0].blocks[0].attn
    for part, (inputs, outputs) in shapes.items():
        assert found[getattr(attention, part)][0] == inputs * outputs * windows
