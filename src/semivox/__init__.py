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
    "benchmark": "semivox.benchmark.run",
    "check": "semivox.reporting.inspect",
    "compare": "semivox.benchmark.compare",
    "demo": "semivox.benchmark.demo",
    "evaluate": "semivox.evaluation.folder",
    "export_dicom_seg": "semivox.export.dicom_seg",
    "import_dataset": "semivox.datasets.importers.bring_in",
    "info": "semivox.reporting.inspect",
    "load_config": "semivox.config",
    "load_grid": "semivox.benchmark.grid",
    "make_phantoms": "semivox.datasets.phantom",
    "open_dataset": "semivox.datasets.dataset",
    "plan": "semivox.preprocessing.ready",
    "predict": "semivox.inference.predict",
    "predict_image": "semivox.inference.predict",
    "prepare": "semivox.preprocessing.ready",
    "pseudo_label": "semivox.inference.pseudo_label",
    "train": "semivox.training.train",
}

__all__ = ["UserError", "__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'semivox' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
