"""What every network of a run shares; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Triple = tuple[int, int, int]
Strides = tuple[Triple, ...]


@dataclass(frozen=True)
class NetSpec:
    """What every network of a run shares.

    Args:
        in_channels: image channels.
        num_classes: classes, background included.
        width: channels of the finest level; they double at each coarser one.
        norm: batch, instance (without learned scale), group (at most 16 groups) or none.
        dropout: probability of dropping a whole channel.
        stem: of the plan: voxels that the features merge along each axis.
        strides: of the plan: between each level and the next.
        along_plan: let networks that halve all axes four times, as published, take strides and kernels from
            the plan, four at most.
        patch: of the plan, for networks of MONAI that take one size only.
        name: of all networks of a method, see `semivox.methods.create`; None: the method's own.
        options: of a network of MONAI; norm, dropout and along_plan are not for it.
        deep: for deep supervision, heads on coarser levels, if the network has them only on request.
        features: see `MonaiNet`; all others have features, or have none.
        spacing_mm: of the working grid; no network needs it.
    """

    in_channels: int
    num_classes: int
    width: int = 16
    norm: str = "batch"
    dropout: float = 0.5
    stem: Triple = (1, 1, 1)
    strides: Strides = ((2, 2, 2),) * 3
    along_plan: bool = False
    patch: Triple | None = None
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    deep: bool = False
    features: bool = False
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
