"""Networks prepared for predictions compute the same."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from semivox.inference.model import lean
from semivox.methods import create
from semivox.nets import NetFactory

CPU = torch.device("cpu")


def with_statistics(method: nn.Module) -> nn.Module:
    """Normalisations as after a training: no two channels alike."""
    generator = torch.Generator().manual_seed(1)
    for module in method.modules():
        if isinstance(module, nn.BatchNorm3d):
            for tensor in (module.running_mean, module.bias):
                tensor.data.normal_(generator=generator)
            for tensor in (module.running_var, module.weight):
                tensor.data.uniform_(0.5, 2, generator=generator)
    return method.double().eval()


def make(name: str, norm: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(create(name, options, NetFactory(2, 3, width=2, norm=norm)))


@pytest.mark.parametrize(
    ("name", "options", "norm"),
    [("supervised_pair", {}, "batch"), ("supervised", {"net": "unet3d"}, "batch"), ("mc_net", {}, "batch"),
     ("urpc", {}, "batch"), ("dtc", {}, "batch"), ("supervised", {}, "instance"), ("supervised", {}, "group"),
     ("supervised", {}, "none")],
)  # fmt: skip
def test_same_probabilities(name, options, norm):
    method = make(name, norm, **options)
    image = torch.randn(1, 2, 32, 16, 16, dtype=torch.float64)
    quick = deepcopy(method)
    lean(quick, CPU)
    with torch.no_grad():
        torch.testing.assert_close(quick.predict(image), method.predict(image), rtol=0, atol=1e-5)


def test_batch_normalisations_disappear_and_weights_are_channels_last():
    method = make("supervised_pair", "batch")
    lean(method, CPU)
    assert not [module for module in method.modules() if isinstance(module, nn.BatchNorm3d)]
    for parameter in method.parameters():
        if parameter.dim() == 5:
            assert parameter.is_contiguous(memory_format=torch.channels_last_3d)


def test_statistics_of_the_batch_are_not_folded():
    layers = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2, track_running_stats=False)).eval()
    lean(layers, CPU)
    assert isinstance(layers[1], nn.BatchNorm3d)
