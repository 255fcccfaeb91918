"""What rooms below are handed to draw with; matplotlib is imported on the first call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semivox.preprocessing.inspect import Sample
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.workspace import overlay_name


def draw_case(workspace: Path, plan: Plan, name: str, image: np.ndarray, label: np.ndarray | None) -> None:
    """Draw a prepared case with the outline of its label, in the process that prepares it."""
    from semivox.reporting.planes import save_overlay

    path = workspace / overlay_name(name)
    save_overlay(path, image, label, plan.spacing_mm, name=name, class_names=plan.class_names)


def draw_diagnosis(title: str, table: Path, subtitle: str) -> None:
    """Draw the table of a diagnosis beside it."""
    from semivox.reporting.diagnosis import save_diagnosis

    save_diagnosis(table.with_suffix(".png"), table, title=title, subtitle=subtitle)


def draw_sheet(
    title: str,
    class_names: Sequence[str],
    path: Path,
    samples: Sequence[Sample],
    captions: Sequence[str],
    *,
    rows: bool = False,
) -> None:
    """Draw scans with captions: thumbnails, or with `rows` three planes a scan."""
    from semivox.reporting.planes import save_sheet

    save_sheet(path, samples, captions, title, class_names, rows=rows)
