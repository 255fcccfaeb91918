"""Figures as they are saved, and whether they can be read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


@pytest.fixture
def overlaps() -> Callable[[Figure], list[str]]:
    """Return what finds texts, captions and panels that touch each other or leave the page."""

    def find(figure: Figure) -> list[str]:
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        texts = [*figure.texts, *(panel.title for panel in figure.axes if panel.get_title())]
        texts += [entry for legend in figure.legends for entry in legend.get_texts()]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts]
        boxes += [("panel", panel.get_window_extent(renderer).padded(-0.5)) for panel in figure.axes]
        pairs, page = combinations(boxes, 2), figure.bbox.padded(1)
        touching = [f"{a}, {b}" for (a, first), (b, second) in pairs if first.overlaps(second)]
        corners = ((name, corner) for name, box in boxes for corner in (box.min, box.max))
        return touching + [name for name, corner in corners if not page.contains(*corner)]

    return find
