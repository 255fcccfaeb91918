"""One page of curves from the table that `train --diagnose` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from semivox.errors import UserError
from semivox.reporting import style
from semivox.reporting.style import CHART_COLORS, INK, NEUTRAL, dress, shorten

_STYLES = ("-", "--", ":", "-.")
_COLUMNS, _WIDTH, _HEIGHT, _HEAD = 3, 5.2, 3.1, 1.1  # panels a row, inches
_CLASSES = 5  # more are averaged
_VOLUMES, _DECADES = 3.0, 1e-5  # larger volume ratios and smaller gradients leave their panels
_QUALITY = {"dice": "Dice", "precision": "precision", "recall": "recall"}
_BY_CLASS = {
    "agreement": "agreement of networks (Dice)",
    "coverage": "coverage: share of the true class",
    "purity": "purity: share that is correct",
}
_CALIBRATED = {"all": ("-", "all voxels"), "foreground": ("--", "foreground (true or found)")}
_NAMED = {"prediction": "prediction (evaluation mode)"}


def save_diagnosis(table_csv: Path, subtitle: str = "", *, title: str) -> None:
    """Draw pseudo-label quality, masks, agreement, calibration, gradient norms; as a PNG beside the table.

    The table has columns iteration, measure, of, part, value, see docs/how-to/diagnose.md; no such table, or
    nothing in it yet, is a `UserError`.
    """
    page = _Page(_read(table_csv))
    drawn = page.panels()
    rows = -(-len(drawn) // _COLUMNS)
    figure = style.chart(_COLUMNS * _WIDTH, rows * _HEIGHT + _HEAD)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    drawn += [Axes.set_axis_off] * (len(panels) - len(drawn))
    for panel, draw in zip(panels, drawn, strict=True):
        draw(panel)
    look: dict[str, Any] = {"frameon": False, "fontsize": 11, "columnspacing": 1.4, "ncols": 10}
    look |= {"title": style.plain(f"{title}\n{subtitle}"), "alignment": "left"}
    key = [Line2D([], [], label=_NAMED.get(name, name), **look) for name, look in page.looks.items()]
    figure.legend(handles=key, loc="outside upper left", **look)
    style.save_png(figure, table_csv.with_suffix(".png"))


class _Page:
    """What panels show of a table."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self._series = table.pivot_table("value", "iteration", ["measure", "of", "part"])
        self._classes = self._names("dice", "part")
        self.looks = _looks(self._names("dice"), self._names("share"))

    def panels(self) -> list[Callable[[Axes], object]]:
        """Return what draws each panel, in their order."""
        by_class = [measure for measure in _BY_CLASS if self._names(measure)]
        return [
            *(partial(self._draw_quality, measure=measure) for measure in _QUALITY),
            self._draw_volume,
            *(partial(self._draw_by_class, measure=measure) for measure in by_class),
            self._draw_calibration,
            self._draw_reliability,
            *(partial(self._draw_gradient, network=name) for name in self._names("gradient", "part")),
        ]

    def _names(self, measure: str, column: str = "of") -> list[str]:
        """List the networks and masks, or the parts, that have a measure."""
        return list(dict.fromkeys(self._table.loc[self._table["measure"] == measure, column]))

    def _draw_quality(self, panel: Axes, measure: str) -> None:
        for name, look in self.looks.items():
            self._plot(panel, measure, name, self._classes, **look)
        mean = " (mean of classes)" if len(self._classes) > 1 else ""
        self._dress(panel, f"{_QUALITY[measure]}{mean}", share=True)

    def _draw_volume(self, panel: Axes) -> None:
        """Draw volume ratios up to a limit; what is there at the end is always shown."""
        panel.axhline(1, color=INK, linewidth=0.8)
        highest, limit = 1.2, _VOLUMES
        for name, look in self.looks.items():
            series = self._plot(panel, "volume", name, self._classes, **look)
            highest, limit = max(highest, 1.05 * series.max()), max(limit, 1.2 * series.iloc[-1])
        panel.set_ylim(-0.02 * min(highest, limit), min(highest, limit))
        self._dress(panel, "foreground: labeled / true")

    def _draw_by_class(self, panel: Axes, measure: str) -> None:
        """Draw a line a class, or the mean of many, for each pair of networks or mask."""
        classes = self._classes
        lines = [] if measure == "agreement" else [(NEUTRAL, "background", ["background"])]
        if len(classes) > _CLASSES:
            lines.append((CHART_COLORS[0], f"mean of {len(classes)} classes", classes))
        else:
            lines += [(CHART_COLORS[-1 - place], name, [name]) for place, name in enumerate(classes)]
        for of, dashes in zip(self._names(measure), _STYLES, strict=False):
            if measure == "coverage":
                look = {"color": INK, "linestyle": dashes, "linewidth": 1.2}
                self._plot(panel, "share", of, ["all"], label=f"{of}, all voxels", **look)
            for color, part, parts in lines:
                look = {"color": color, "linestyle": dashes, "linewidth": 1.8}
                self._plot(panel, measure, of, parts, label=f"{of}, {shorten(part, 18)}", **look)
        self._dress(panel, _BY_CLASS[measure], share=True)

    def _draw_calibration(self, panel: Axes) -> None:
        for part, (dashes, _) in _CALIBRATED.items():
            for name in self._names("ece"):
                self._plot(panel, "ece", name, [part], **{**self.looks[name], "linestyle": dashes})
        panel.set_ylim(bottom=0)
        self._dress(panel, "calibration error (ECE)")
        key = [
            Line2D([], [], color=INK, linestyle=dashes, label=part) for dashes, part in _CALIBRATED.values()
        ]
        panel.legend(handles=key, fontsize=8.5, frameon=False)

    def _draw_reliability(self, panel: Axes) -> None:
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.8)
        last = self._table["iteration"].max()
        rows = self._table[(self._table["iteration"] == last) & self._table["measure"].str.startswith("bin_")]
        for name, own in rows.groupby("of", sort=False):
            bins = own.pivot_table("value", "part", "measure")
            curve = bins["bin_confidence"], bins["bin_accuracy"]
            panel.plot(*curve, **self.looks[name])
            dots = {"color": self.looks[name]["color"], "alpha": 0.5, "linewidth": 0}
            panel.scatter(*curve, s=10 + 150 * np.sqrt(bins["bin_share"]), **dots)
        panel.set_ylim(-0.02, 1.02)
        confidence = f"confidence at iteration {last} (dot: share of voxels)"
        dress(panel, x=confidence, y="share that is correct")

    def _draw_gradient(self, panel: Axes, network: str) -> None:
        for term, color in zip(self._names("gradient"), cycle(CHART_COLORS), strict=False):
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
        style.add_legend(panel)
        panel.set_xlim(0, 1.02 * max(self._series.index[-1], 1))
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if share:
            panel.set_ylim(-0.02, 1.02)


def _looks(labels: Sequence[str], masked: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Color and dashes of each label; `x_a` has the color of `a`, labels with a mask are dotted."""
    found: dict[str, dict[str, Any]] = {}
    colors = cycle(CHART_COLORS)
    for name in sorted(labels, key=lambda name: name == "prediction"):
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
