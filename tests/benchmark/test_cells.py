"""Which networks of a method are scored alone."""

from __future__ import annotations

import pytest
import torch

from semivox.benchmark.cells import has_members
from semivox.methods import create, method_table
from semivox.nets import NetFactory


@pytest.mark.parametrize("name", method_table())
def test_every_method_with_several_networks_has_members(name: str) -> None:
    method = create(name, {}, NetFactory(1, 2, width=2, norm="group", dropout=0.0)).eval()
    with torch.no_grad():
        assert has_members(method) == (len(method.predict_members(torch.zeros(1, 1, 32, 32, 32))) > 1)
