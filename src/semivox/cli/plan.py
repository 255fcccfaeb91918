"""A plan on the screen: its entries, each with its reason, and the grids that were compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from semivox.cli.show import put, table
from semivox.preprocessing.plan import Plan

_NAMED = 3  # classes with a column of their own
_NARROW = 60  # columns
_TITLE = (
    "Grids of features (* chosen): size of a scan on them, Dice that classes keep, patch in voxels of the"
    " working grid, share of a scan that it holds:"
)


def show_plan(plan: Plan) -> None:
    """Print each entry that has a reason, and the table of grids."""
    console = Console()
    for name, reason in plan.reasons.items():
        value = getattr(plan, name, "")
        shown = _sides(value) if isinstance(value, tuple) and len(value) == 3 else _plain(value)
        console.print(Text(f"{name}: ", style="bold") + Text(shown), soft_wrap=True)
        console.print(Padding(Text(reason), (0, 0, 0, 2)), highlight=False)
    if plan.grids:
        narrow = console.width < _NARROW
        console.print(Text(_TITLE), highlight=False)
        put(_grids(plan, by_class=len(plan.class_names) <= _NAMED + 1 and not narrow, size=not narrow))


def _grids(plan: Plan, *, by_class: bool, size: bool) -> Table:
    names = plan.class_names[1:]
    headings = [" grid", *(("scan",) if size else ()), *(names if by_class else ("worst",)), "patch", "holds"]
    rows = [
        (
            f"{'*' if row['chosen'] else ' '}{_sides(row['spacing_mm'], 'x')} mm",
            *(("x".join(map(str, row["voxels"])),) if size else ()),
            *(
                [_kept(row["fidelity"], name) for name in names]
                if by_class
                else [_worst(row["fidelity"], named=size)]
            ),
            "x".join(map(str, row["patch"])),
            f"{row['share']:.0%}",
        )
        for row in plan.grids
    ]
    return table(*headings, rows=rows)


def _kept(fidelity: Mapping[str, float], name: str) -> str:
    return f"{fidelity[name]:.3f}" if name in fidelity else ""


def _worst(fidelity: Mapping[str, float], *, named: bool) -> str:
    name = min(fidelity, key=lambda key: fidelity[key])
    return f"{name} {fidelity[name]:.3f}" if named else f"{fidelity[name]:.3f}"


def _sides(values: Sequence[Any], between: str = " x ") -> str:
    """Write three sides, or one where all are alike."""
    shown = [f"{side:.3g}" if isinstance(side, (int, float)) else str(side) for side in values]
    return shown[0] if len(set(shown)) == 1 else between.join(shown)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
