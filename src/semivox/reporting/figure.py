"""Pictures for a report: methods side by side on the same slices, and the course of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from semivox.errors import UserError
from semivox.reporting.overlay import (
    AXIAL,
    DPI,
    FAINT,
    TEXT,
    Volume,
    add_panel,
    class_color,
    dark_figure,
    draw_letters,
    draw_outlines,
    draw_scale_bar,
    draw_slice,
    grey_window,
    plane,
    ras_spacing,
    save_png,
    shorten,
    to_ras,
    write_in_panel,
)

_TRUTH = "#ffffff"
_MARGIN_MM = 10.0  # at most a quarter of the foreground's size
_PANEL, _NARROWEST, _GAP = 2.9, 2.0, 0.08  # inches: longer side of a panel, column, space between
_DPI = 140


def save_comparison(
    path: Path,
    image: NDArray[Any],
    reference: Volume,
    labels: Mapping[str, Volume],
    spacing_mm: Sequence[float],
    *,
    scores: Mapping[str, float] | None = None,
    title: str | None = None,
    class_names: Sequence[str] | None = None,
    axes: str | None = None,
    rows: int = 3,
) -> None:
    """Draw axial slices with the outline of the reference and of each method's result, a column a method.

    The slices divide the foreground into equal parts; the picture shows the surroundings of the foreground.
    The patient's right is at the left.

    Args:
        path: the PNG to write.
        image: (C, X, Y, Z); the first channel is shown.
        reference: class indices (X, Y, Z).
        labels: the result of each method, in the order of the columns.
        spacing_mm: voxel size.
        scores: Dice of each method.
        title: e.g. the name of the case.
        class_names: background first; default: numbers.
        axes: where the array's axes point to, as `nibabel.aff2axcodes` says; None: unknown, taken for RAS,
            the picture then has no letters.
        rows: slices.
    """
    spacing = ras_spacing(spacing_mm, axes)
    truth, found = to_ras(reference, axes), {name: to_ras(label, axes) for name, label in labels.items()}
    channel = to_ras(image[0], axes)
    box, cuts = _region((truth, *found.values()), spacing, rows)
    window = grey_window(channel[box])
    channel, truth = channel[box], truth[box]
    found = {name: label[box] for name, label in found.items()}

    size = [channel.shape[axis] * spacing[axis] for axis in (0, 1)]
    scale = _PANEL / max(size)  # inches a mm
    wide, high = scale * size[0], scale * size[1]
    pitch = max(wide, _NARROWEST) + _GAP
    width = max(_GAP + len(found) * pitch, 5.0)
    legend = _legend((truth, *found.values()), class_names)
    foot = 0.45 + _legend_height(legend, width)
    head = 0.38 + (0.24 if scores else 0) + (0.38 if title else 0)
    total = head + len(cuts) * (high + _GAP) + foot
    figure = dark_figure(width, total, _DPI)
    if title:
        text = shorten(title, int(width / 0.135))
        figure.text(0.15 / width, 1 - 0.25 / total, text, color=TEXT, fontsize=13, weight="bold", va="center")
    for column, (name, label) in enumerate(found.items()):
        center = width / 2 + pitch * (column - (len(found) - 1) / 2)
        dice = (scores or {}).get(name)
        _write_column_head(figure, name, dice, (center, total - (0.38 if title else 0)), pitch)
        for row, cut in enumerate(cuts):
            bottom = foot + (len(cuts) - 1 - row) * (high + _GAP)
            panel = add_panel(figure, center - wide / 2, bottom, wide, high)
            draw_slice(panel, plane(channel, AXIAL, cut), AXIAL, spacing, window)
            draw_outlines(panel, plane(label, AXIAL, cut), AXIAL, spacing, width=2.0)
            draw_outlines(panel, plane(truth, AXIAL, cut), AXIAL, spacing, color=_TRUTH, width=0.9)
            write_in_panel(panel, f"z {cut + 1}", 0, 0, ha="left", va="bottom")
            if axes:
                draw_letters(panel, AXIAL)
    draw_scale_bar(figure, 0.15, foot - 0.22, scale)
    figure.legend(
        handles=legend,
        loc="lower right",
        ncols=_legend_columns(legend, width),
        frameon=False,
        labelcolor=TEXT,
        fontsize=10,
        handlelength=1.4,
        columnspacing=1.2,
    )
    save_png(figure, path)


def save_training_curve(path: Path, metrics_csv: Path) -> None:
    """Draw the loss of a run and, if there were validations, their Dice against iterations, as a PNG.

    Args:
        path: the PNG to write.
        metrics_csv: `logs/metrics.csv` of the run, with columns iteration, loss and, with validation,
            val_dice and val_dice_CLASS.

    Raises:
        UserError: no such table, or nothing in it yet.
    """
    table = _read_log(metrics_csv)
    classes = [name for name in table.columns if name.startswith("val_dice")]
    classes.sort(key=lambda name: name != "val_dice")
    validated = table.dropna(subset=classes, how="all") if classes else table.iloc[:0]
    panels = 2 if len(validated) else 1
    figure = Figure(figsize=(8, 1 + 2.6 * panels), dpi=DPI, facecolor="white", layout="constrained")
    upper, *lower = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    _draw_loss(upper, table.dropna(subset=["loss"]))
    for panel in lower:
        _draw_validation(panel, validated, classes)
    last = (upper, *lower)[-1]
    last.set_xlabel("iteration", fontsize=11)
    last.set_xlim(0, 1.02 * table["iteration"].max())
    last.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    save_png(figure, path)


def _region(
    labels: Sequence[Volume], spacing: Sequence[float], rows: int
) -> tuple[tuple[slice, ...], list[int]]:
    """Find the box in the plane around all foreground, with a margin, and the slices to show, head first."""
    foreground = np.logical_or.reduce([label > 0 for label in labels])
    if not foreground.any():
        foreground = np.ones_like(foreground)
    box = []
    for axis in (0, 1):
        filled = np.flatnonzero(foreground.any(axis=(1 - axis, 2)))
        start, stop = int(filled[0]), int(filled[-1]) + 1
        margin = round(min(_MARGIN_MM / spacing[axis], (stop - start) / 4))
        box.append(slice(max(0, start - margin), stop + margin))
    cumulative = np.cumsum(foreground.sum(axis=(0, 1)))
    shares = (np.arange(rows) + 0.5) / rows
    cuts = {int(np.searchsorted(cumulative, share * cumulative[-1])) for share in shares}
    return (*box, slice(None)), sorted(cuts, reverse=True)


def _write_column_head(
    figure: Figure, name: str, dice: float | None, place: tuple[float, float], pitch: float
) -> None:
    """Write name and Dice above a column whose heads begin at `place` (center, top; inches)."""
    wide, high = figure.get_size_inches()
    center, top = place
    figure.text(
        center / wide,
        (top - 0.2) / high,
        shorten(name, int(pitch / 0.12)),
        color=TEXT,
        fontsize=12,
        weight="bold",
        ha="center",
        va="center",
    )
    if dice is not None:
        text = f"Dice {dice:.3f}"
        figure.text(
            center / wide, (top - 0.44) / high, text, color=FAINT, fontsize=11, ha="center", va="center"
        )


def _legend(labels: Sequence[Volume], class_names: Sequence[str] | None) -> list[Line2D]:
    present = np.unique(np.concatenate([np.flatnonzero(np.bincount(label.ravel())) for label in labels]))
    indices = [int(index) for index in present if index]
    names = [class_names[index] if class_names else f"class {index}" for index in indices]
    names = ["result"] if len(indices) == 1 else names
    handles = [Line2D([], [], color=_TRUTH, linewidth=1.4, label="reference")]
    return handles + [
        Line2D([], [], color=class_color(index), linewidth=2.4, label=shorten(name, 24))
        for index, name in zip(indices, names, strict=True)
    ]


def _legend_columns(legend: Sequence[Line2D], width: float) -> int:
    """Entries that fit into a line of `width` inches."""
    longest = max(len(str(handle.get_label())) for handle in legend)
    return max(1, min(len(legend), int((width - 0.2) / (0.45 + 0.078 * longest))))


def _legend_height(legend: Sequence[Line2D], width: float) -> float:
    """Inches to add to the foot: none if one line beside the scale bar is enough."""
    fits = _legend_columns(legend, width - 2.2) == len(legend)
    return 0.0 if fits else 0.22 * -(-len(legend) // _legend_columns(legend, width))


def _read_log(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(
            "The log of the training cannot be read",
            path=path,
            found=str(error),
            expected="logs/metrics.csv of a run",
        ) from error
    if not {"iteration", "loss"} <= set(table.columns) or table.empty:
        raise UserError(
            "The log of the training holds no losses",
            path=path,
            found=f"{len(table)} rows with columns {', '.join(table.columns)}",
            expected="at least one row with iteration and loss",
        )
    return table


def _draw_loss(panel: Axes, table: pd.DataFrame) -> None:
    loss = table["loss"]
    if len(loss) < 40:
        panel.plot(table["iteration"], loss, color="#1f4e79", linewidth=1.8)
    else:
        smooth = loss.rolling(len(loss) // 20, min_periods=1, center=True).median()
        panel.plot(table["iteration"], loss, color="#9db8d2", linewidth=0.8, label="logged")
        panel.plot(table["iteration"], smooth, color="#1f4e79", linewidth=1.8, label="running median")
    low, high = float(loss.min()), float(loss.quantile(0.99))
    if high > low:
        panel.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))
    dress(panel, "training loss")


def _draw_validation(panel: Axes, table: pd.DataFrame, classes: Sequence[str]) -> None:
    for column, style in _styles(classes):
        panel.plot(table["iteration"], table[column], marker="o", markersize=4, **style)
    overall = table[classes[0]]
    if overall.notna().any():
        best = int(np.nanargmax(overall.to_numpy()))
        at, value = float(table["iteration"].iloc[best]), float(overall.iloc[best])
        panel.set_title(
            f"best {value:.3f} at iteration {at:,.0f}", fontsize=10, loc="right", color="#444444", pad=4
        )
        panel.axvline(at, color="#888888", linewidth=0.8, linestyle=":")
    dress(panel, "validation Dice")


def _styles(classes: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    colors = ("#1f4e79", "#d1495b", "#edae49", "#00798c", "#7b4b94", "#6b8f3c", "#30638e")
    several = len(classes) > 2
    for index, column in enumerate(classes):
        if index == 0:
            yield (
                column,
                {"color": colors[0], "linewidth": 2, "label": "mean of classes" if several else "Dice"},
            )
        elif several:
            color = colors[1 + (index - 1) % (len(colors) - 1)]
            label = shorten(column.removeprefix("val_dice_"), 24)
            yield column, {"color": color, "linewidth": 1.2, "label": label}


def dress(panel: Axes, label: str) -> None:
    """Give a panel its axis label, grid and, if it has several named lines, a legend."""
    panel.set_ylabel(label, fontsize=11)
    panel.grid(color="#e3e3e3", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=10)
    if len(panel.get_legend_handles_labels()[1]) > 1:
        panel.legend(fontsize=9, frameon=False, ncols=2)
