"""semivox: semi-supervised 3D medical image segmentation.

The functions mirror the commands and are loaded on first use, so that importing the package is quick::

    import semivox

    run = semivox.train("scans", method="dual", labeled=8)
    label = semivox.predict_image(run, "new_scan.nii.gz")
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from semivox.version import __version__ as __version__

TYPE_CHECKING = False  # without `typing`, which takes half of the time until the command can answer a signal
if TYPE_CHECKING:
    from typing import Any

    from semivox.api import *  # noqa: F403
    from semivox.errors import UserError as UserError


def _find(name: str) -> Any:
    if name == "api" or (name.startswith("_") and name != "__all__"):
        raise AttributeError(f"module 'semivox' has no attribute {name!r}")
    errors = import_module("semivox.errors")
    if name == "UserError":
        return errors.UserError
    api = import_module("semivox.api")
    public = ["UserError", "__version__", *api.__all__]
    if name in api.__all__:
        return getattr(api, name)
    if name == "__all__":
        return public
    hint = f"; did you mean {close}?" if (close := errors.nearest(name, public)) else ""
    raise AttributeError(f"module 'semivox' has no attribute {name!r}{hint}")


if not TYPE_CHECKING:  # so that type checkers tell a name that does not exist
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted(_find("__all__"))


class _Room(ModuleType):
    """A room with the name of a function, such as `semivox.benchmark`, can be called like the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _find(self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in ("benchmark", "methods"):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
