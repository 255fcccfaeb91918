"""Networks by name, from one lazy table; importing this room does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from semivox.errors import UserError, unknown
from semivox.nets.spec import NetSpec

if TYPE_CHECKING:
    from semivox.nets.network import Segmenter

NETS: dict[str, str] = {
    "vnet": "semivox.nets.vnet:VNet",
    "resnet34": "semivox.nets.resnet:ResNet34",
    "unet3d": "semivox.nets.unet3d:UNet3D",
    "resunet": "semivox.nets.resunet:ResUNet",
}
MONAI = "monai:"  # before the name of a class of monai.networks.nets
_MONAI = {MONAI: "semivox.nets.monai:MonaiNet"}


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


class NetFactory(NetSpec):
    """What every network of a run shares; calling it with a name builds one, freshly initialised."""

    def __call__(self, name: str, **overrides: Any) -> Segmenter:
        """Build a key of `NETS` or `monai:CLASS`; `overrides` replace single fields, e.g. `num_classes=1`.

        Raises:
            UserError: unknown name, norm or option.
        """
        net = replace(self, **overrides)
        if name.startswith(MONAI):
            made: Segmenter = lookup(_MONAI, MONAI, "network")(name.removeprefix(MONAI), net)
            return made
        if name not in NETS:
            raise _unknown(name)
        kind = lookup(NETS, name, "network")
        if not kind.follows_plan:
            net = replace(net, strides=net.strides[:4] if net.along_plan else ((2, 2, 2),) * 4)
        made = kind(net)
        return made


def build_net(name: str, **fields: Any) -> Segmenter:
    """Build a network alone; `fields` are those of `NetFactory`."""
    return NetFactory(**fields)(name)


def _unknown(name: str) -> UserError:
    """Return the error for no network; a class of MONAI without its prefix is the one that was meant.

    Unless it begins the name of one of ours: that MONAI has a `UNet`, too, is not worth its import.
    """
    error = unknown("network", name, [*sorted(NETS), f"{MONAI}CLASS"])
    if any(ours.startswith(name) for ours in NETS):
        return error
    from semivox.nets.monai_class import SEGMENTERS

    plain = _plain(name.lower().removeprefix(MONAI))
    if (meant := next((kind for kind in SEGMENTERS if _plain(kind) == plain), None)) is None:
        return error
    return UserError(error.what, error.found, error.expected, f"did you mean {MONAI}{meant}?")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
