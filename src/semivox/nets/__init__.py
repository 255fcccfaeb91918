"""Networks by name, from one lazy table; importing this room does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from semivox.errors import UserError, unknown

Triple = tuple[int, int, int]
HALVINGS: tuple[Triple, ...] = ((2, 2, 2),) * 4  # as published: between five levels
DIVISOR = 2 ** len(HALVINGS)  # then, of the sides of a patch
NETS: dict[str, str] = {
    "vnet": "semivox.nets.published:VNet",
    "resnet34": "semivox.nets.published:ResNet34",
    "unet3d": "semivox.nets.published:UNet3D",
    "resunet": "semivox.nets.resunet:ResUNet",
}
MONAI = "monai:"  # before the name of a class of monai.networks.nets
SEGMENTERS = (  # classes of MONAI that are for segmentation; others are tried, too
    "AttentionUnet", "BasicUNet", "BasicUNetPlusPlus", "DAF3D", "DynUNet", "FlexibleUNet", "HighResNet",
    "MedNeXt", "SegResNet", "SegResNetDS", "SwinUNETR", "UNETR", "UNet", "VNet",
)  # fmt: skip
_MONAI_NET = "semivox.nets.monai:MonaiNet"


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
    except Exception as error:  # whatever the code of another package raises
        found = f"{type(error).__name__}: {error}"
        raise UserError(f"The {kind} {name} cannot be loaded", found, table[name]) from error


@dataclass(frozen=True)
class NetFactory:
    """What every network of a run shares; calling it with a name builds one, freshly initialised.

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
    strides: tuple[Triple, ...] = ((2, 2, 2),) * 3
    along_plan: bool = False
    patch: Triple | None = None
    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    deep: bool = False
    features: bool = False
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, name: str, **overrides: Any) -> Any:
        """Build the `Network` of a key of `NETS` or `monai:CLASS`; `overrides` replace single fields.

        Raises:
            UserError: unknown name, norm or option.
        """
        of_monai = [name] if name.startswith(MONAI) else [MONAI + kind for kind in SEGMENTERS]
        kind = lookup(NETS | dict.fromkeys(of_monai, _MONAI_NET), name, "network")
        net = replace(self, name=name, **overrides)
        if not kind.follows_plan:
            net = replace(net, strides=net.strides[:4] if net.along_plan else HALVINGS)
        return kind(net)


def build_net(name: str, **fields: Any) -> Any:
    """Build a network alone; `fields` are those of `NetFactory`."""
    return NetFactory(**fields)(name)
