"""Cases by methods: slices with outlines, and surfaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from semivox.reporting import slices, style
from semivox.reporting.slices import Outline, RasImage, View, Volume, add_panel
from semivox.reporting.style import shorten, write
from semivox.reporting.surfaces import Frame, frame_foreground, render

REFERENCE = "reference"
_GAP, _NAME, _DICE = 0.08, 0.3, 0.26  # inches: between panels; for the name of a case; for a line of Dice
_NARROWEST = 1.3  # inches of a column
_MOST = 6  # methods beside each other, with several scenes
_CELL, _DPI = 1.5, 180  # inches: longer side of a panel

Place = tuple[float, float, float]  # left and lower edge of a panel in inches, and inches a mm


@dataclass(frozen=True)
class Scene:
    """A case: what was found by each method, in the order of the columns, beside the reference."""

    name: str
    scan: RasImage  # all labels are turned as it is
    reference: Volume  # class indices
    found: Mapping[str, Volume]
    scores: Mapping[str, float]  # Dice

    def cropped(self) -> tuple[Scene, tuple[slice, ...]]:
        """Cut out the surroundings of all foreground; also return that box."""
        box = slices.surroundings(np.maximum.reduce([self.reference, *self.found.values()]))
        found = {name: label[box] for name, label in self.found.items()}
        return Scene(self.name, self.scan.cropped(box), self.reference[box], found, self.scores), box


class _Block(NamedTuple):
    """The panels of a scene: width and height, inches a mm, and what draws one in each row."""

    scene: Scene
    wide: float
    high: float
    scale: float
    rows: list[Callable[[Figure, Place, str], None]]


def slices_figure(
    scenes: Sequence[Scene],
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    *,
    note: str = "",
    cuts: int = 1,
    cell: float = _CELL,
) -> Figure:
    """Draw slices with the outline of the reference in white and of each method in color, a column a method.

    The slices lie in the plane with the finest pixels and divide the foreground into equal parts; the picture
    shows its surroundings. With several scenes, the first column is the reference alone.

    Args:
        scenes: the cases.
        class_names: background first; default: numbers.
        title: above the picture.
        cuts: slices a case.
        cell: longer side of a panel in inches.
    """
    labels = [label for scene in scenes for label in (scene.reference, *scene.found.values())]
    blocks = [_slices_of(scene, cuts, cell, numbered=len(scenes) == 1) for scene in scenes]
    return _lay_out(blocks, slices.outline_lines(labels, class_names, reference=True), title, note)


def surfaces_figure(
    scenes: Sequence[Scene], class_names: Sequence[str], title: str, *, note: str = ""
) -> Figure:
    """Draw the surface of the reference and of each method, seen from the front left."""
    blocks = []
    for scene in (scene.cropped()[0] for scene in scenes):
        frame = frame_foreground([scene.reference, *scene.found.values()], scene.scan.spacing)
        draw = partial(_draw_surface, scene, frame)
        wide, high = _CELL * frame.size[:2] / frame.side
        blocks.append(_Block(scene, wide, high, _CELL / frame.side, [draw]))
    return _lay_out(blocks, style.class_lines(range(len(class_names)), class_names), title, note)


def _draw_surface(scene: Scene, frame: Frame, figure: Figure, place: Place, column: str) -> None:
    pixels = render(scene.found.get(column, scene.reference), scene.scan.spacing, frame, round(_CELL * _DPI))
    left, bottom, scale = place
    add_panel(figure, left, bottom, *(scale * frame.size[:2])).imshow(pixels, interpolation="none")


def _slices_of(scene: Scene, cuts: int, cell: float, *, numbered: bool) -> _Block:
    near, box = scene.cropped()
    view = slices.finest_view(near.scan.spacing)
    foreground = np.maximum.reduce([near.reference, *near.found.values()]) > 0
    counted = (foreground if foreground.any() else ~foreground).sum((view.horizontal, view.vertical))
    places = np.searchsorted(counted.cumsum(), (np.arange(cuts) + 0.5) / cuts * counted.sum())
    first = box[view.normal].start + 1
    rows = [
        partial(_draw_cut, near, view, at, first + at if numbered else None)
        for at in sorted(set(places.tolist()), reverse=True)
    ]
    wide, high = near.scan.size_mm(view)
    scale = cell / max(wide, high)
    return _Block(scene, scale * wide, scale * high, scale, list(rows))


def _draw_cut(
    scene: Scene, view: View, at: int, number: int | None, figure: Figure, place: Place, column: str
) -> None:
    """Draw a slice; where it has a number, that is written into it, and letters."""
    size = place[2] * max(scene.scan.size_mm(view))
    outlines = [Outline(scene.reference, slices.TRUTH, 0.3 + 0.25 * size)]
    if column in scene.found:
        outlines.insert(0, Outline(scene.found[column], None, 0.7 + 0.45 * size))
    letters = number is not None or column not in scene.found
    panel = slices.draw_slice(figure, place, scene.scan, view, at, outlines, letters=letters)
    if number is not None:
        slices.write_in_panel(panel, f"{'xyz'[view.normal]} {number}", 0, 0, ha="left", va="bottom")


def _lay_out(blocks: Sequence[_Block], legend: Sequence[Line2D], title: str | None, note: str) -> Figure:
    """Lay out rows of scenes and columns of methods; with several scenes the first is of the reference.

    Many methods stand in bands of rows below each other: one band would be unreadable on a page.
    """
    several, methods = len(blocks) > 1, list(blocks[0].scene.found)
    count = -(-len(methods) // _MOST) if several else 1
    bands = [list(band) for band in np.array_split(methods, count)]
    bands = [[REFERENCE, *band] for band in bands] if several else bands
    pitch, most = _GAP + max(_NARROWEST, *(block.wide for block in blocks)), max(map(len, bands))
    side, dice = _NAME if several else 0.0, _DICE if any(block.scene.scores for block in blocks) else _GAP
    width = max(side + most * pitch + _GAP, 5.0)
    foot = 0.67 if note else 0.45
    foot += style.legend_height(legend, width, 0.0 if several else style.SCALE_BAR)
    rows = [dice + len(block.rows) * (block.high + _GAP) for block in blocks]
    top = foot + len(bands) * (sum(rows) + 0.35)
    figure = style.dark_figure(width, top + (0.38 if title else 0), _DPI)
    if title:
        write(figure, 0.15, top + 0.13, shorten(title, int(width / 0.11)), fontsize=11, weight="bold")
    middles = side + (width - side) / 2 + pitch * (np.arange(most) - (most - 1) / 2)
    for number, band in enumerate(bands):
        bottom = top - number * (sum(rows) + 0.35) - 0.35
        for middle, name in zip(middles, band, strict=False):
            look = {"fontsize": 9 if several else 11, "weight": "bold", "ha": "center"}
            write(figure, middle, bottom + 0.17, shorten(name, int(pitch / 0.085)), **look)
        for block, row in zip(blocks, rows, strict=True):
            if several:
                look = {"fontsize": 7, "color": style.FAINT, "rotation": 90, "ha": "center"}
                text = shorten(block.scene.name, int(row / 0.09))
                write(figure, 0.17, bottom - (row + dice) / 2, text, **look)
            for middle, name in zip(middles, band, strict=False):
                _draw_column(figure, block, name, middle, bottom, dice)
            bottom -= row
    if several:
        write(figure, 0.15, foot - 0.16, shorten(note, int(width / 0.065)), fontsize=8, color=style.FAINT)
    else:
        slices.draw_scale_bar(figure, 0.15, foot - 0.22, blocks[0].scale)
    style.draw_legend(figure, legend)
    return figure


def _draw_column(figure: Figure, block: _Block, name: str, middle: float, top: float, dice: float) -> None:
    """Draw the Dice of one method, and below it its panels."""
    if (score := block.scene.scores.get(name)) is not None:
        write(figure, middle, top - 0.14, f"Dice {score:.3f}", fontsize=8.5, color=style.FAINT, ha="center")
    for row, draw in enumerate(block.rows):
        bottom = top - dice - row * (block.high + _GAP) - block.high
        draw(figure, (middle - block.wide / 2, bottom, block.scale), name)
