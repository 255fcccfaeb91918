"""One page of curves from the table that `train --diagnose` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from semivox.errors import UserError
from semivox.reporting.style import (
    CHART_COLORS,
    INK,
    NEUTRAL,
    add_legend,
    chart,
    dress,
    plain,
    save_png,
    shorten,
)

_STYLES = ("-", "--", ":", "-.")
_COLUMNS, _WIDTH, _HEIGHT, _HEAD = 3, 5.2, 3.1, 1.1  # panels a row, inches
_CLASSES = 5  # more are averaged
_VOLUMES, _DECADES = 3.0, 1e-5  # larger volume ratios and smaller gradients leave their panels
_QUALITY = {"dice": "Dice", "precision": "precision", "recall": "recall"}
_MASKS = {"coverage": "coverage: share of the true class", "purity": "purity: share that is correct"}
_NAMED = {"prediction": "prediction (evaluation mode)"}

Draw = Callable[[Axes, str], None]


def save_diagnosis(path: Path, table_csv: Path, *, title: str, subtitle: str = "") -> None:
    """Draw pseudo-label quality, masks, agreement, calibration and gradient norms against iterations.

    The table has columns iteration, measure, of, part, value, see docs/how-to/diagnose.md; no such table, or
    nothing in it yet, is a `UserError`.
    """
    page = _Page(_read(table_csv))
    drawn: list[tuple[Draw, str]] = [(page.draw_volume, "volume")]
    drawn[:0] = [(page.draw_quality, measure) for measure in _QUALITY]
    for measure in ("agreement", *_MASKS):
        drawn += [(page.draw_by_class, measure)] * (measure in page.measures)
    drawn += [(page.draw_calibration, "ece"), (page.draw_reliability, "bins")]
    drawn += [(page.draw_gradient, network) for network in page.names("gradient", "part")]
    rows = -(-len(drawn) // _COLUMNS)
    figure = chart(_COLUMNS * _WIDTH, rows * _HEIGHT + _HEAD)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for panel in panels[len(drawn) :]:
        panel.set_axis_off()
    for panel, (draw, what) in zip(panels, drawn, strict=False):
        draw(panel, what)
    key = [Line2D([], [], label=_NAMED.get(name, name), **look) for name, look in page.looks.items()]
    look: dict[str, Any] = {"frameon": False, "fontsize": 11, "columnspacing": 1.4, "ncols": 10}
    figure.legend(
        handles=key, loc="outside upper left", title=plain(f"{title}\n{subtitle}"), alignment="left", **look
    )
    save_png(figure, path)


class _Page:
    """What panels show of a table."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self.measures = set(table["measure"])
        self._series = table.pivot_table("value", "iteration", ["measure", "of", "part"])
        self._classes = self.names("dice", "part")
        labels = sorted(self.names("dice"), key=lambda name: name == "prediction")
        self.looks = _looks(labels, self.names("share"))

    def names(self, measure: str, column: str = "of") -> list[str]:
        """List the networks and masks, or the parts, that have a measure."""
        return list(dict.fromkeys(self._table.loc[self._table["measure"] == measure, column]))

    def draw_quality(self, panel: Axes, measure: str) -> None:
        for name, look in self.looks.items():
            self._plot(panel, measure, name, self._classes, **look)
        mean = " (mean of classes)" if len(self._classes) > 1 else ""
        self._dress(panel, f"{_QUALITY[measure]}{mean}", share=True)

    def draw_volume(self, panel: Axes, measure: str) -> None:
        """Draw volume ratios up to a limit; what is there at the end is always shown."""
        panel.axhline(1, color=INK, linewidth=0.8)
        highest, limit = 1.2, _VOLUMES
        for name, look in self.looks.items():
            series = self._plot(panel, measure, name, self._classes, **look)
            highest, limit = max(highest, 1.05 * series.max()), max(limit, 1.2 * series.iloc[-1])
        panel.set_ylim(-0.02 * min(highest, limit), min(highest, limit))
        self._dress(panel, "foreground: labeled / true")

    def draw_by_class(self, panel: Axes, measure: str) -> None:
        """Draw a line a class, or the mean of many, for each pair of networks or mask."""
        lines = [(NEUTRAL, "background", ["background"])] if measure in _MASKS else []
        if len(self._classes) > _CLASSES:
            lines.append((CHART_COLORS[0], f"mean of {len(self._classes)} classes", self._classes))
        else:
            colors = reversed(CHART_COLORS[-len(self._classes) :])
            lines += [(color, name, [name]) for color, name in zip(colors, self._classes, strict=False)]
        for of, dashes in zip(self.names(measure), _STYLES, strict=False):
            if measure == "coverage":
                look = {"color": INK, "linestyle": dashes, "linewidth": 1.2}
                self._plot(panel, "share", of, ["all"], label=f"{of}, all voxels", **look)
            for color, part, parts in lines:
                look = {"color": color, "linestyle": dashes, "linewidth": 1.8}
                self._plot(panel, measure, of, parts, label=f"{of}, {shorten(part, 18)}", **look)
        self._dress(panel, _MASKS.get(measure, "agreement of networks (Dice)"), share=True)

    def draw_calibration(self, panel: Axes, measure: str) -> None:
        parts = {"all": ("-", "all voxels"), "foreground": ("--", "foreground (true or found)")}
        for part, (dashes, _) in parts.items():
            for name in self.names(measure):
                look = {**self.looks[name], "linestyle": dashes}
                self._plot(panel, measure, name, [part], **look)
        panel.set_ylim(bottom=0)
        self._dress(panel, "calibration error (ECE)")
        lines = [Line2D([], [], color=INK, linestyle=dashes, label=label) for dashes, label in parts.values()]
        panel.legend(handles=lines, fontsize=8.5, frameon=False)

    def draw_reliability(self, panel: Axes, measure: str) -> None:
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        last = self._table["iteration"].max()
        rows = self._table[(self._table["iteration"] == last) & self._table["measure"].str.startswith("bin_")]
        for name, own in rows.groupby("of", sort=False):
            bins = own.pivot_table("value", "part", "measure")
            panel.plot(bins["bin_confidence"], bins["bin_accuracy"], **self.looks[name])
            sizes = 10 + 150 * np.sqrt(bins["bin_share"])
            dots = {"color": self.looks[name]["color"], "alpha": 0.5, "linewidth": 0}
            panel.scatter(bins["bin_confidence"], bins["bin_accuracy"], s=sizes, **dots)
        panel.set_ylim(-0.02, 1.02)
        confidence = f"confidence at iteration {last} (dot: share of voxels)"
        dress(panel, x=confidence, y="share that is correct")

    def draw_gradient(self, panel: Axes, network: str) -> None:
        for term, color in zip(self.names("gradient"), cycle(CHART_COLORS), strict=False):
            look = {"color": INK, "linewidth": 1.2} if term == "sum" else {"color": color, "linewidth": 1.8}
            if ("gradient", term, network) in self._series:
                self._plot(panel, "gradient", term, [network], label=term, **look)
        panel.set_yscale("log", nonpositive="mask")
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, _DECADES * high), high)
        self._dress(panel, f"gradient norm on {network}")

    def _plot(
        self, panel: Axes, measure: str, of: str, parts: Sequence[str], **look: Any
    ) -> pd.Series[float]:
        """Draw the mean over `parts` at each iteration; NaN (a gap) where nothing was found."""
        columns = [key for part in parts if (key := (measure, of, part)) in self._series]
        series = self._series[columns].mean(axis=1)
        panel.plot(series.index, series, **look)
        return series

    def _dress(self, panel: Axes, label: str, *, share: bool = False) -> None:
        dress(panel, x="iteration", y=label)
        add_legend(panel)
        panel.set_xlim(0, 1.02 * max(self._series.index[-1], 1))
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if share:
            panel.set_ylim(-0.02, 1.02)


def _looks(labels: Sequence[str], masked: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Color and dashes of each label; `x_a` has the color of `a`, labels with a mask are dotted."""
    found: dict[str, dict[str, Any]] = {}
    colors = cycle(CHART_COLORS)
    for name in labels:
        parent = name.rpartition("_")[2]
        if name == "prediction":
            found[name] = {"color": NEUTRAL, "linestyle": "-.", "linewidth": 1.8}
        elif parent != name and parent in found:
            found[name] = {"color": found[parent]["color"], "linestyle": "--", "linewidth": 1.4}
        else:
            dashes = (0, (2, 2)) if name in masked else "-"
            found[name] = {"color": next(colors), "linestyle": dashes, "linewidth": 1.8}
    return found


def _read(path: Path) -> pd.DataFrame:
    expected, found = "diagnosis/diagnosis.csv of a run, with one row or more", "no such rows"
    try:
        table = pd.read_csv(path, dtype={"of": str, "part": str}, keep_default_na=False)
        if len(table[["iteration", "measure", "of", "part", "value"]]):
            return table
    except (OSError, ValueError, KeyError) as error:
        found = str(error)
    raise UserError("The table of the diagnosis cannot be read", found, expected, path=path)
