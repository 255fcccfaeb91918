"""Cases by methods: slices with outlines, and surfaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from semivox.reporting.comparison import foreground_region
from semivox.reporting.paper.surface import frame_foreground, render
from semivox.reporting.slices import (
    Volume,
    add_panel,
    draw_letters,
    draw_outlines,
    draw_slice,
    finest_view,
    grey_window,
    plane,
)
from semivox.reporting.style import (
    FAINT,
    class_lines,
    dark_figure,
    draw_legend,
    legend_height,
    save_figure,
    shorten,
    write,
)

REFERENCE = "reference"
_TRUTH, _CELL, _GAP, _NAME = "#ffffff", 1.5, 0.06, 0.3  # inches: panel, space, name of a case
_DPI = 200


@dataclass(frozen=True)
class Scene:
    """A case: what was found by each method, beside the reference.

    Attributes:
        name: of the case.
        channel: image (X, Y, Z); axes of all arrays to the right, front and head.
        reference: class indices (X, Y, Z).
        found: of each method, in the order of the columns.
        spacing: voxel size in mm.
        scores: Dice of each method.
        oriented: whether the axes are known.
    """

    name: str
    channel: Volume
    reference: Volume
    found: Mapping[str, Volume]
    spacing: tuple[float, ...]
    scores: Mapping[str, float]
    oriented: bool = True


def save_slices(path: Path, scenes: Sequence[Scene], class_names: Sequence[str], title: str) -> None:
    """Draw the slice with the median of the foreground: the reference white, each method in color."""

    def draw(panel: Axes, scene: Scene, label: Volume) -> None:
        view = finest_view(scene.spacing)
        box, cuts = foreground_region((scene.reference, *scene.found.values()), scene.spacing, view, 1)
        channel = scene.channel[box]
        draw_slice(panel, plane(channel, view, cuts[0]), view, scene.spacing, grey_window(channel))
        if label is not scene.reference:
            draw_outlines(panel, plane(label[box], view, cuts[0]), view, scene.spacing, width=1.4)
        truth = plane(scene.reference[box], view, cuts[0])
        draw_outlines(panel, truth, view, scene.spacing, color=_TRUTH, width=0.8)
        if scene.oriented and label is scene.reference:
            draw_letters(panel, view)

    def shape(scene: Scene) -> tuple[float, float]:
        view = finest_view(scene.spacing)
        box, _ = foreground_region((scene.reference, *scene.found.values()), scene.spacing, view, 1)
        sides = scene.channel[box].shape
        return (sides[view.horizontal] * scene.spacing[view.horizontal],
                sides[view.vertical] * scene.spacing[view.vertical])  # fmt: skip

    _save(path, scenes, class_names, title, draw, shape, outline=True)


def save_surfaces(path: Path, scenes: Sequence[Scene], class_names: Sequence[str], title: str) -> None:
    """Draw the surface of the reference and of each method, seen from the front left."""

    def draw(panel: Axes, scene: Scene, label: Volume) -> None:
        frame = frame_foreground((scene.reference, *scene.found.values()), scene.spacing)
        pixels = int(_CELL * _DPI)
        panel.imshow(render(label, scene.spacing, frame, pixels), interpolation="none")

    _save(path, scenes, class_names, title, draw, lambda scene: (1.0, 1.0), outline=False)


def _save(
    path: Path,
    scenes: Sequence[Scene],
    class_names: Sequence[str],
    title: str,
    draw: Callable[[Axes, Scene, Volume], None],
    shape: Callable[[Scene], tuple[float, float]],
    *,
    outline: bool,
) -> None:
    """Lay out one row a scene, and a column for the reference and for each method."""
    names = [REFERENCE, *scenes[0].found]
    legend = class_lines(range(len(class_names)), class_names)
    legend = [Line2D([], [], color=_TRUTH, linewidth=1.4, label=REFERENCE), *legend] if outline else legend
    width = max(_NAME + len(names) * (_CELL + _GAP) + _GAP, 4.0)
    sizes = [shape(scene) for scene in scenes]
    heights = [_CELL * min(1.0, high / max(size)) for size in sizes for high in size[1:]]
    foot = 0.5 + legend_height(legend, width)
    figure = dark_figure(width, foot + sum(heights) + len(scenes) * 0.26 + 0.75, _DPI)
    top = figure.get_figheight()
    write(figure, 0.12, top - 0.22, shorten(title, int(width / 0.1)), fontsize=11, weight="bold")
    bottom = top - 0.7
    for row, (scene, size, high) in enumerate(zip(scenes, sizes, heights, strict=True)):
        bottom -= high + 0.26
        wide = _CELL * min(1.0, size[0] / max(size))
        look: dict[str, Any] = {"fontsize": 7, "color": FAINT, "rotation": 90, "ha": "center"}
        write(figure, 0.17, bottom + high / 2, shorten(scene.name, int(high / 0.075)), **look)
        for column, name in enumerate(names):
            middle = _NAME + column * (_CELL + _GAP) + _CELL / 2
            if row == 0:
                write(figure, middle, top - 0.6, shorten(name, 18), fontsize=9, weight="bold", ha="center")
            panel = add_panel(figure, middle - wide / 2, bottom, wide, high)
            draw(panel, scene, scene.found.get(name, scene.reference))
            if name in scene.scores:
                text = f"Dice {scene.scores[name]:.3f}"
                write(figure, middle, bottom - 0.11, text, fontsize=8, color=FAINT, ha="center")
    draw_legend(figure, legend)
    save_figure(figure, path)
