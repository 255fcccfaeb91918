"""Cases by methods: slices with outlines, and surfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from semivox.reporting import slices
from semivox.reporting.layout import Panel, Row, class_lines, page
from semivox.reporting.slices import Outline, RasImage, Volume, slice_panel
from semivox.reporting.surfaces import frame_foreground, surface_panel

REFERENCE = "reference"
_NARROWEST = 1.3  # inches of a column
_MOST = 6  # methods beside each other, with several scenes
_CELL, _DPI = 1.5, 180  # inches: longer side of a panel

Columns = dict[str, list[Panel]]  # the panels of each label of a scene, below each other


@dataclass(frozen=True)
class Scene:
    """A case: what was found by each method, in the order of the columns, beside the reference."""

    name: str
    scan: RasImage  # all labels are turned as it is
    reference: Volume  # class indices
    found: Mapping[str, Volume]
    scores: Mapping[str, float]  # Dice

    @property
    def labels(self) -> dict[str, Volume]:
        """The reference, then what was found."""
        return {REFERENCE: self.reference, **self.found}

    @property
    def foreground(self) -> Volume:
        """Not 0 where a label is not."""
        return np.asarray(np.maximum.reduce(list(self.labels.values())))

    def cropped(self) -> Scene:
        """Cut out the surroundings of all foreground."""
        box = slices.surroundings(self.foreground)
        found = {name: label[box] for name, label in self.found.items()}
        return Scene(self.name, self.scan.cropped(box), self.reference[box], found, self.scores)


def slices_figure(
    scenes: Sequence[Scene],
    class_names: Sequence[str] | None = None,
    title: str = "",
    *,
    note: str = "",
    cuts: int = 1,
    cell: float = _CELL,
) -> Figure:
    """Draw slices with the outline of the reference in white and of each method in color, a column a method.

    The slices lie in the plane with the finest pixels and divide the foreground into equal parts; the picture
    shows its surroundings. With several scenes, the first column is the reference alone. There are `cuts`
    slices a case, whose longer side has `cell` inches; `title` is above the picture, `note` below it.
    """
    labels = [label for scene in scenes for label in scene.labels.values()]
    legend = slices.outline_lines(labels, class_names, reference=True)
    columns = [_slices_of(scene.cropped(), cuts, cell, alone=len(scenes) == 1) for scene in scenes]
    return _lay_out(scenes, columns, title=title, note=note, legend=legend)


def surfaces_figure(
    scenes: Sequence[Scene], class_names: Sequence[str], title: str, *, note: str = ""
) -> Figure:
    """Draw the surface of the reference and of each method, seen from the front left."""
    columns: list[Columns] = []
    for near in (scene.cropped() for scene in scenes):
        place = near.scan.spacing, frame_foreground([near.foreground], near.scan.spacing), _CELL
        pixels = round(_CELL * _DPI)
        columns.append({name: [surface_panel(label, *place, pixels)] for name, label in near.labels.items()})
    legend = class_lines(range(len(class_names)), class_names)
    return _lay_out(scenes, columns, title=title, note=note, legend=legend)


def _slices_of(scene: Scene, cuts: int, cell: float, *, alone: bool) -> Columns:
    """Cut a scene; if it is alone, slices have numbers, and all have letters."""
    view = slices.finest_view(scene.scan.spacing)
    counted = (scene.foreground > 0).sum((view.horizontal, view.vertical))
    counted = counted if counted.any() else np.ones_like(counted)
    places = np.searchsorted(counted.cumsum(), (np.arange(cuts) + 0.5) / cuts * counted.sum())
    scale = cell / max(scene.scan.size_mm(view))
    white = Outline(scene.reference, slices.TRUTH, 0.3 + 0.25 * cell)
    columns: Columns = {}
    for name, label in scene.labels.items():
        outlines = [white] if name == REFERENCE else [Outline(label, None, 0.7 + 0.45 * cell), white]
        columns[name] = [
            slice_panel(
                scene.scan, view, at, scale, outlines, letters=alone or name == REFERENCE,
                text=scene.scan.slice_name(view, at) if alone else "",
            )
            for at in sorted(set(places.tolist()), reverse=True)
        ]  # fmt: skip
    return columns


def _lay_out(scenes: Sequence[Scene], columns: Sequence[Columns], **look: Any) -> Figure:
    """Lay out rows of scenes and columns of methods; with several scenes the first is of the reference.

    Many methods stand in bands of rows below each other: one band would be unreadable on a page.
    """
    several, methods, rows = len(scenes) > 1, list(scenes[0].found), list[Row]()
    for band in np.array_split(methods, -(-len(methods) // _MOST) if several else 1):
        names = [REFERENCE, *band] if several else list(band)
        for scene, panels in zip(scenes, columns, strict=True):
            first, *others = zip(*(panels[name] for name in names), strict=True)
            dice = [f"Dice {scene.scores[name]:.3f}" if name in scene.scores else "" for name in names]
            scored = [panel._replace(caption=text) for panel, text in zip(first, dice, strict=True)]
            rows.append(Row(scored, scene.name * several, names if scene is scenes[0] else ()))
            rows += map(Row, others)
    widest = max(panel.wide for row in rows for panel in row.panels)
    return page(rows, narrowest=max(_NARROWEST, widest), dpi=_DPI, **look)
