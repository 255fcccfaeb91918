"""Old names of `plan_data` and `prepare_data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semivox.preprocessing.plan import Plan
from semivox.preprocessing.workspace import plan_data, prepare_data

plan = plan_data


def prepare(data: Any, *, overlays: bool = True, **options: Any) -> Any:
    return prepare_data(data, on_case=draw_case if overlays else None, **options)


def draw_case(path: Path, plan: Plan, name: str, image: np.ndarray, label: np.ndarray | None) -> None:
    from semivox.reporting.overlay import save_overlay

    save_overlay(path, image, label, plan.spacing_mm, name=name, class_names=plan.class_names)
