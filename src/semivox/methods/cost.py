"""Size and cost of a method, without computing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from semivox.methods import create
from semivox.nets import NetFactory
from semivox.nets.count import count_parameters, counted_macs


class Cost(NamedTuple):
    """Parameters of all its networks (teachers too), and multiply-accumulates to predict one patch."""

    parameters: int
    macs: int


def method_cost(name: str, options: Mapping[str, Any], net: NetFactory, patch: Sequence[int]) -> Cost:
    """Build a method without memory for its weights and count; see `semivox.nets.count` for what counts.

    Args:
        name: registered name.
        options: of the method.
        net: builds its networks.
        patch: (X, Y, Z) in voxels.

    Raises:
        UserError: unknown name or option.
    """
    with torch.device("meta"), torch.random.fork_rng([]):
        method = create(name, options, net).eval()
        image = torch.empty((1, net.in_channels, *patch))
        with torch.no_grad(), counted_macs(method) as counts:
            method.predict(image)
    return Cost(count_parameters(method), sum(counts))
