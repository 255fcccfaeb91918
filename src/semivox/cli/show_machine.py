"""A machine's times on the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from semivox.training.machine import Forecast, Machine

_NOTES = (
    "~: not measured, for lack of time, but concluded from a cheaper preset. Hours are those of the training"
    " steps alone, for one channel and one class; validation comes on top. A patch ? depends on the scans."
)


def show_machine(found: Machine) -> None:
    """Show hardware, networks, reading of patches, and the forecast of the presets."""
    console = Console()
    memory = "" if found.memory_gb is None else f", {found.memory_gb:g} GB"
    console.print(
        f"{found.device}, {found.threads} threads{memory}, {found.precision} bit, PyTorch {found.torch}"
        .replace("bf16 bit", "bf16"),
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    nets = _table(
        f"network,  {_sides(found.net_patch)}", "forward and backward, 2 patches", "forward, 1 patch"
    )
    for net in found.nets:
        nets.add_row(net.net, _seconds(net.step_s), _seconds(net.window_s))
    console.print(nets)
    store = _table("patch", "augmentation", "patches a second, one process")
    for reading in found.store:
        store.add_row(_sides(reading.patch), reading.augment, f"{reading.per_second:.0f}")
    console.print(store)
    presets = _table("preset", "method", "patches", "step", "window", "iterations", "hours")
    for one in found.presets:
        presets.add_row(one.preset, one.method, _patches(one), *_times(one))
    console.print(presets)
    console.print(_NOTES, highlight=False)


def _times(one: Forecast) -> tuple[str, str, str, str]:
    if one.step_s is None or one.window_s is None or one.hours is None:
        return "", "", str(one.iterations), ""
    about = "" if one.measured else "~"
    step, window = about + _seconds(one.step_s), about + _seconds(one.window_s)
    return step, window, str(one.iterations), f"{about}{one.hours:.2g}"


def _patches(one: Forecast) -> str:
    return f"{one.patches} x " + ("?" if one.patch is None else _sides(one.patch))


def _sides(patch: tuple[int, int, int]) -> str:
    return "x".join(map(str, patch))


def _seconds(value: float) -> str:
    return f"{value:.3g} s"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    return table
