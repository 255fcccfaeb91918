"""Networks by name, from one lazy table; importing this room does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from semivox.errors import UserError, unknown

if TYPE_CHECKING:
    from semivox.nets.network import Segmenter

Triple = tuple[int, int, int]
Strides = tuple[Triple, ...]
DEFAULT_STRIDES: Strides = ((2, 2, 2),) * 3
MOST_STRIDES = 4  # of networks with a published number of levels

NETS: dict[str, str] = {
    "vnet": "semivox.nets.vnet:VNet",
    "resnet34": "semivox.nets.resnet:ResNet34",
    "unet3d": "semivox.nets.unet3d:UNet3D",
    "resunet": "semivox.nets.resunet:ResUNet",
}


def lookup(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Import the class that a table of "module:Class" strings holds for `name`.

    Raises:
        UserError: a name that is not in the table (the nearest one is named), or a broken entry.
    """
    if name not in table:
        raise unknown(kind, name, sorted(table))
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"The {kind} {name} cannot be loaded", error, table[name]) from error


def build_net(
    name: str,
    *,
    in_channels: int,
    num_classes: int,
    width: int = 16,
    norm: str = "batch",
    dropout: float = 0.5,
    stem: Triple = (1, 1, 1),
    strides: Strides = DEFAULT_STRIDES,
    along_plan: bool = False,
) -> Segmenter:
    """Build a freshly initialised network.

    Args:
        name: a key of `NETS`.
        in_channels: image channels.
        num_classes: classes, background included.
        width: channels of the finest level; they double at each of the four coarser ones.
        norm: batch, instance (without learned scale), group (at most 16 groups) or none.
        dropout: probability of dropping a whole channel.
        stem: of the plan: voxels that the features merge along each axis.
        strides: of the plan: between each level and the next.
        along_plan: let networks that halve all axes four times, as published, take strides and kernels from
            the plan, four at most.

    Raises:
        UserError: unknown name or norm.
    """
    kind = lookup(NETS, name, "network")
    grid: dict[str, Any] = {"stem": stem}
    if kind.follows_plan:
        grid["strides"] = strides
    elif along_plan:
        grid["strides"] = strides[:MOST_STRIDES]
    net: Segmenter = kind(
        in_channels=in_channels, num_classes=num_classes, width=width, norm=norm, dropout=dropout, **grid
    )
    return net


@dataclass(frozen=True)
class NetFactory:
    """What every network of a run shares; calling it with a name builds one."""

    in_channels: int
    num_classes: int
    width: int = 16
    norm: str = "batch"
    dropout: float = 0.5
    stem: Triple = (1, 1, 1)
    strides: Strides = DEFAULT_STRIDES
    along_plan: bool = False

    def __call__(self, name: str, **overrides: Any) -> Segmenter:
        """Build the network `name`; `overrides` replace single fields, e.g. `num_classes=1`."""
        return build_net(name, **{**asdict(self), **overrides})
