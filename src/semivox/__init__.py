"""semivox: semi-supervised 3D medical image segmentation.

The functions mirror the commands and are loaded on first use, so that importing the package is quick::

    import semivox

    run = semivox.train("scans", method="dual", labeled=8)
    label = semivox.predict_image(run, "new_scan.nii.gz")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from semivox.errors import UserError
from semivox.version import __version__

_PUBLIC = {
    "benchmark": "semivox.verbs.benchmark",
    "check": "semivox.verbs.inspect",
    "compare": "semivox.verbs.compare",
    "demo": "semivox.verbs.demo",
    "evaluate": "semivox.verbs.evaluate",
    "export_dicom_seg": "semivox.verbs.export",
    "import_dataset": "semivox.data.importers",
    "info": "semivox.verbs.inspect",
    "load_config": "semivox.config",
    "load_grid": "semivox.verbs.grid",
    "make_phantoms": "semivox.data.phantom",
    "open_dataset": "semivox.data.dataset",
    "plan": "semivox.verbs.prepare",
    "predict": "semivox.verbs.predict",
    "predict_image": "semivox.verbs.predict",
    "prepare": "semivox.verbs.prepare",
    "pseudo_label": "semivox.verbs.pseudo",
    "train": "semivox.verbs.train",
}

__all__ = ["UserError", "__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'semivox' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
