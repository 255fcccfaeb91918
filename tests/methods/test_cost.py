"""Size and cost of methods, against the figures known for their networks."""

from __future__ import annotations

import pytest
import torch

from semivox.errors import UserError
from semivox.methods import METHODS, create
from semivox.methods.cost import method_cost
from semivox.nets import NetFactory

NET = NetFactory(in_channels=1, num_classes=2)
PATCH = (112, 112, 80)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("supervised", 9_448_866, 40.1087),
        ("dual", 27_379_220, 112.8438),
        ("supervised_pair", 27_379_220, 112.8438),
    ],
)
def test_published_networks(name: str, parameters: int, macs: float) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    cost = method_cost(name, {}, NET, PATCH)
    assert cost.parameters == parameters
    assert cost.macs / 1e9 == pytest.approx(macs, abs=1e-4)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_options_count_and_mistakes_are_explained() -> None:
    twins = method_cost("dual", {"nets": ["vnet", "vnet"]}, NET, PATCH)
    assert twins.macs == 2 * method_cost("supervised", {}, NET, PATCH).macs
    with pytest.raises(UserError, match="did you mean tau"):
        method_cost("dual", {"tua": 1}, NET, PATCH)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_counted(name: str) -> None:
    net = NetFactory(in_channels=2, num_classes=3, width=2)
    cost = method_cost(name, {}, net, (16, 32, 16))
    assert cost.parameters == sum(parameter.numel() for parameter in create(name, {}, net).parameters())
    assert cost.macs > 100_000
