"""What rooms below are handed to draw with; matplotlib is imported on the first call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def diagnosis_drawer(title: str) -> Callable[[Path, str], None]:
    """Return what draws the table of a diagnosis beside it."""

    def draw(table: Path, subtitle: str) -> None:
        from semivox.reporting.diagnosis import save_diagnosis

        save_diagnosis(table.with_suffix(".png"), table, title=title, subtitle=subtitle)

    return draw


def sheet_drawer(
    title: str, class_names: Sequence[str], *, rows: bool = False
) -> Callable[[Path, Sequence[Sample], Sequence[str]], None]:
    """Return what draws scans with captions: thumbnails, or with `rows` three planes a scan."""

    def draw(path: Path, samples: Sequence[Sample], captions: Sequence[str]) -> None:
        if rows:
            from semivox.reporting.sheets import save_rows as save
        else:
            from semivox.reporting.sheets import save_sheet as save
        save(path, samples, captions, title, class_names)

    return draw
