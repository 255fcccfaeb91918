"""Training methods by name, from one lazy table; importing this room does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from semivox.errors import UserError, shortened
from semivox.nets import MONAI, NetFactory, lookup

if TYPE_CHECKING:
    from semivox.methods.base import Method

METHODS: dict[str, str] = {
    "ac_mt": "semivox.methods.ac_mt:ACMT",
    "ad_mt": "semivox.methods.ad_mt:ADMT",
    "bcp": "semivox.methods.bcp:BCP",
    "cpcl": "semivox.methods.cpcl:CPCL",
    "cross_match": "semivox.methods.cross_match:CrossMatch",
    "dtc": "semivox.methods.dtc:DTC",
    "dual": "semivox.methods.dual:Dual",
    "labels_only": "semivox.methods.self_training:LabelsOnly",
    "luseg": "semivox.methods.luseg:LUSEG",
    "mc_net": "semivox.methods.mc_net:MCNet",
    "mc_net_plus": "semivox.methods.mc_net:MCNetPlus",
    "mcf": "semivox.methods.mcf:MCF",
    "ml_rpl": "semivox.methods.ml_rpl:MLRPL",
    "sassnet": "semivox.methods.sassnet:SASSNet",
    "sdcl": "semivox.methods.sdcl:SDCL",
    "self_training": "semivox.methods.self_training:SelfTraining",
    "ss_net": "semivox.methods.ss_net:SSNet",
    "supervised": "semivox.methods.supervised:Supervised",
    "supervised_matched": "semivox.methods.supervised:SupervisedMatched",
    "supervised_pair": "semivox.methods.supervised:SupervisedPair",
    "ua_mt": "semivox.methods.ua_mt:UAMT",
    "urpc": "semivox.methods.urpc:URPC",
}


def method_table() -> dict[str, str]:
    """All methods as name -> "module:Class": the package's own and those of installed packages."""
    others = {point.name: point.value for point in entry_points(group="semivox.methods")}
    return {**others, **METHODS}


def method_class(name: str) -> type[Method]:
    """Import the class of a registered method.

    Raises:
        UserError: unknown name (the nearest one is named), or an entry point that is no method.
    """
    found: type[Method] = lookup(table := method_table(), name, "method")
    if not hasattr(found, "Config"):
        what, wanted = (
            f"The method {name} cannot be loaded",
            "a class derived from semivox.methods.base.Method",
        )
        raise UserError(what, f"{table[name]} is {found!r}", wanted)
    return found


def create(name: str, options: Mapping[str, Any], net: NetFactory) -> Method:
    """Build a method with its networks.

    Args:
        name: registered name.
        options: values of the method's `Config`; what is left out has the published default.
        net: builds the networks.

    Raises:
        UserError: unknown name, unknown option (the nearest one is named) or bad value.
    """
    method = method_class(name)(check_method(name, _with_named(name, options, net.name)))
    method.build(net)
    if net.options and not any(getattr(part, "takes_options", False) for part in method.modules()):
        found, wanted = shortened(net.options), f"a network of MONAI, e.g. net.name={MONAI}SegResNet"
        raise UserError("net.options are for networks of MONAI, and the method has none", found, wanted)
    return method


def _with_named(name: str, options: Mapping[str, Any], net: str | None) -> Mapping[str, Any]:
    """Put `net.name` into the method's options: its one network, or both of a pair."""
    if net is None:
        return options
    known = method_class(name).Config.model_fields
    option = next((one for one in ("net", "nets") if one in known), None)
    if option is None:
        raise UserError(
            f"The method {name} has networks of its own", f"net.name={net}", do="leave out net.name"
        )
    if option in options:
        found = f"net.name={net} and method.options.{option}={options[option]}"
        raise UserError("Two settings name the network", found, "one of them")
    return {**options, option: (net, net) if option == "nets" else net}


def check_method(name: str, options: Mapping[str, Any]) -> Any:
    """Return the checked options of a method, its `Config`; no network is built.

    Raises:
        UserError: unknown name, unknown option (the nearest one is named) or bad value.
    """
    from pydantic import ValidationError

    from semivox.config import config_error

    kind = method_class(name)
    try:
        return kind.Config(**options)
    except ValidationError as error:
        wrong = config_error(error, kind.Config, at="method.options.")
        raise UserError(f"{wrong.what} (method {name})", wrong.found, wrong.expected, wrong.do) from error
