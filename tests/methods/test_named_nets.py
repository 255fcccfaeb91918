"""`net.name` and `net.options`: the network of a method, also one of MONAI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from semivox.errors import UserError
from semivox.methods import METHODS, create
from semivox.methods.base import Batch
from semivox.methods.catalogue import describe_method
from semivox.nets import NetFactory
from semivox.nets.monai import MonaiNet
from semivox.nets.published import VNet

NET = NetFactory(1, 3, width=4, stem=(2, 1, 1), strides=((2, 2, 2), (2, 2, 1)))
MONAI = replace(NET, name="monai:UNet", options={"num_res_units": 1})
LEVELS = {"cpcl", "cross_match", "mc_net", "mc_net_plus", "ml_rpl", "urpc"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_network_of_monai_or_says_which_it_takes(
    name: str, step: Callable[..., Any]
) -> None:
    if name in LEVELS:
        with pytest.raises(UserError, match="expected: one of resnet34, unet3d, vnet"):
            create(name, {}, MONAI)
        return
    method = create(name, {}, MONAI)
    assert any(isinstance(part, MonaiNet) for part in method.modules())
    image = torch.randn(4, 1, 16, 16, 16)
    labeled, unlabeled = Batch(image[:2], (image[:2, 0] > 0).long()), Batch(image[2:], None)
    losses = method.losses(labeled, unlabeled, at := step())
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert any(parameter.grad is not None for parameter in method.parameters())
    method.after_step(at)
    with torch.no_grad():
        assert method.eval().predict(image).shape == (4, 3, 16, 16, 16)
        assert not any(":" in member for member in method.predict_members(image))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("net", ["unet3d", "resunet", "monai:UNet"])
def test_the_reference_names_the_networks_that_a_method_takes(name: str, net: str) -> None:
    (text,) = (o["description"] for o in describe_method(name)["options"] if o["name"] in ("net", "nets"))
    try:
        create(name, {}, replace(NET, name=net))
    except UserError:
        assert net.replace("UNet", "CLASS") not in text
    else:
        assert net.replace("UNet", "CLASS") in text


def test_the_name_is_that_of_both_networks_of_a_pair_and_of_a_teacher() -> None:
    pair = create("supervised_pair", {}, replace(NET, name="vnet"))
    assert isinstance(pair.net_a, VNet) and isinstance(pair.net_b, VNet)
    mixed = create("dual", {"nets": ("monai:UNet", "vnet")}, replace(NET, options={"num_res_units": 2}))
    assert isinstance(mixed.net_a, MonaiNet) and isinstance(mixed.net_b, VNet)
    assert isinstance(create("ua_mt", {}, MONAI).teacher, MonaiNet)


def test_what_would_be_ignored_is_refused() -> None:
    with pytest.raises(UserError, match="Two settings name the network"):
        create("supervised", {"net": "vnet"}, MONAI)
    with pytest.raises(UserError, match=r"net.options are for networks of MONAI"):
        create("supervised", {}, replace(NET, options={"feature_size": 12}))
    with pytest.raises(UserError, match="features of each voxel"):
        create("dual", {}, replace(NET, name="resunet"))
