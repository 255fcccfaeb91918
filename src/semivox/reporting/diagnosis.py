"""One page of curves from the table that `train --diagnose` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from semivox.errors import UserError
from semivox.reporting import style
from semivox.reporting.style import CHART_COLORS, DARK, NEUTRAL, dress

_STYLES = ("-", "--", ":", "-.")
_COLUMNS, _WIDTH, _HEIGHT, _HEAD = 3, 5.2, 3.1, 1.1  # panels a row, inches
_CLASSES = 5  # more are averaged
_VOLUMES, _DECADES = 3.0, 1e-5  # larger volume ratios and smaller gradients leave their panels
_MASKS = {"coverage": "coverage: share of the true class", "purity": "purity: share that is correct"}
_NAMED = {"prediction": "prediction (evaluation mode)"}

Draw = Callable[[Axes], None]


def save_diagnosis(path: Path, table_csv: Path, *, title: str, subtitle: str = "") -> None:
    """Draw pseudo-label quality, masks, agreement, calibration and gradient norms against iterations.

    Args:
        table_csv: columns iteration, measure, of, part, value, see docs/how-to/diagnose.md.

    Raises:
        UserError: no such table, or nothing in it yet.
    """
    page = _Page(_read(table_csv))
    panels = page.panels()
    rows = -(-len(panels) // _COLUMNS)
    high, head = rows * _HEIGHT + _HEAD, _HEAD / (rows * _HEIGHT + _HEAD)
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - head), w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(_COLUMNS * _WIDTH, high), dpi=style.DPI, facecolor="white", layout=layout)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for panel, draw in zip(grid, panels, strict=False):
        draw(panel)
    for panel in grid[len(panels) :]:
        panel.set_axis_off()
    style.write(figure, 0.19, high - 0.25 * _HEAD, title, fontsize=16, weight="bold", color=DARK)
    style.write(figure, 0.19, high - 0.52 * _HEAD, subtitle, color="#555555")
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (0.004, 1 - 0.82 * head)}
    look: dict[str, Any] = {"frameon": False, "fontsize": 11, "columnspacing": 1.4}
    figure.legend(handles=page.key(), ncols=10, **place, **look)
    style.save_png(figure, path)


class _Page:
    """The panels that a table has data for."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table, self._last = table, int(table["iteration"].max())
        labels = sorted(self._of("dice"), key=lambda name: name == "prediction")
        self._looks = _looks(labels, masked=set(self._of("share")))
        self._classes = list(dict.fromkeys(table.loc[table["measure"] == "dice", "part"]))

    def panels(self) -> list[Draw]:
        """Return drawing functions in reading order."""
        mean = " (mean of classes)" if len(self._classes) > 1 else ""
        names = {"dice": "Dice", "precision": "precision", "recall": "recall"}
        found: list[Draw] = [
            partial(self._quality, measure=measure, label=f"{name}{mean}") for measure, name in names.items()
        ]
        found.append(self._volume)
        by_class = {"agreement": "agreement of networks (Dice)", **_MASKS}
        for measure, label in by_class.items():
            if self._of("coverage" if measure in _MASKS else measure):
                found.append(partial(self._by_class, measure=measure, label=label))
        networks = dict.fromkeys(self._table.loc[self._table["measure"] == "gradient", "part"])
        gradients = (partial(self._gradient, network=name) for name in networks)
        return [*found, self._calibration, self._reliability, *gradients]

    def key(self) -> list[Line2D]:
        """Return what the colors mean in the panels that compare labels."""
        return [Line2D([], [], label=_NAMED.get(name, name), **look) for name, look in self._looks.items()]

    def _of(self, measure: str) -> list[str]:
        return list(dict.fromkeys(self._table.loc[self._table["measure"] == measure, "of"]))

    def _plot(
        self, panel: Axes, measure: str, of: str, parts: Sequence[str], **look: Any
    ) -> pd.Series[float]:
        """Draw the mean over `parts` at each iteration; NaN (a gap) where nothing was found."""
        table = self._table
        chosen = table[(table["measure"] == measure) & (table["of"] == of) & table["part"].isin(parts)]
        series = chosen.groupby("iteration")["value"].mean().reindex(np.unique(table["iteration"]))
        if measure == "gradient":
            series = series.where(series > 0)
        if series.notna().any() or measure != "gradient":
            panel.plot(series.index, series, **look)
        return series

    def _dress(self, panel: Axes, label: str, *, share: bool = False) -> None:
        dress(panel, x="iteration", y=label)
        style.add_legend(panel)
        panel.set_xlim(0, 1.02 * max(self._last, 1))
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if share:
            panel.set_ylim(-0.02, 1.02)

    def _quality(self, panel: Axes, *, measure: str, label: str) -> None:
        for name, look in self._looks.items():
            self._plot(panel, measure, name, self._classes, **look)
        self._dress(panel, label, share=True)

    def _volume(self, panel: Axes) -> None:
        panel.axhline(1, color=DARK, linewidth=0.8)
        highest, limit = 1.2, _VOLUMES
        for name, look in self._looks.items():
            series = self._plot(panel, "volume", name, self._classes, **look)
            highest = max(highest, 1.05 * float(series.max()))
            limit = max(limit, 1.2 * float(series.iloc[-1]))  # what is there at the end is always shown
        panel.set_ylim(-0.02 * min(highest, limit), min(highest, limit))
        self._dress(panel, "foreground: labeled / true")

    def _by_class(self, panel: Axes, *, measure: str, label: str) -> None:
        """Draw a line a class, or the mean of many, for each pair of networks or mask."""
        lines = [(NEUTRAL, "background", ["background"])] if measure in _MASKS else []
        if len(self._classes) > _CLASSES:
            lines.append((CHART_COLORS[0], f"mean of {len(self._classes)} classes", self._classes))
        else:
            colors = reversed(CHART_COLORS[-len(self._classes) :])
            lines += [(color, name, [name]) for color, name in zip(colors, self._classes, strict=False)]
        for of, dashes in zip(self._of(measure), _STYLES, strict=False):
            look: dict[str, Any] = {"linestyle": dashes, "linewidth": 1.8}
            if measure == "coverage":
                thin = {**look, "color": DARK, "linewidth": 1.2}
                self._plot(panel, "share", of, ["all"], label=f"{of}, all voxels", **thin)
            for color, part, parts in lines:
                name = f"{of}, {style.shorten(part, 18)}"
                self._plot(panel, measure, of, parts, color=color, label=name, **look)
        self._dress(panel, label, share=True)

    def _calibration(self, panel: Axes) -> None:
        for name in self._of("ece"):
            for part, dashes in (("all", "-"), ("foreground", "--")):
                look = {"color": self._looks[name]["color"], "linewidth": 1.6, "linestyle": dashes}
                self._plot(panel, "ece", name, [part], **look)
        panel.set_ylim(bottom=0)
        self._dress(panel, "calibration error (ECE)")
        lines = [Line2D([], [], color=DARK, linestyle=dashes) for dashes in ("-", "--")]
        panel.legend(lines, ["all voxels", "foreground (true or found)"], fontsize=9, frameon=False)

    def _reliability(self, panel: Axes) -> None:
        panel.plot([0, 1], [0, 1], color=DARK, linewidth=0.8)
        table = self._table[self._table["iteration"] == self._last]
        for name in self._of("ece"):
            own = table[table["of"] == name].pivot_table(index="part", columns="measure", values="value")
            if "bin_share" in own:
                own = own.dropna(subset=["bin_share"])
                panel.plot(own["bin_confidence"], own["bin_accuracy"], **self._looks[name])
                dots = {"s": 10 + 150 * np.sqrt(own["bin_share"]), "color": self._looks[name]["color"]}
                panel.scatter(own["bin_confidence"], own["bin_accuracy"], alpha=0.5, linewidth=0, **dots)
        panel.set_ylim(-0.02, 1.02)
        confidence = f"confidence at iteration {self._last} (dot: share of voxels)"
        dress(panel, x=confidence, y="share that is correct")

    def _gradient(self, panel: Axes, *, network: str) -> None:
        terms = self._of("gradient")
        for term, color in zip(terms, CHART_COLORS * len(terms), strict=False):
            look = {"color": DARK, "linewidth": 1.2} if term == "sum" else {"color": color, "linewidth": 1.8}
            self._plot(panel, "gradient", term, [network], label=term, **look)
        panel.set_yscale("log")
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, _DECADES * high), high)
        self._dress(panel, f"gradient norm on {network}")


def _looks(labels: Sequence[str], masked: Set[str]) -> dict[str, dict[str, Any]]:
    """Color and dashes of each label; `x_a` has the color of `a`, labels with a mask are dotted."""
    found: dict[str, dict[str, Any]] = {}
    colors = iter(CHART_COLORS * len(labels))
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
