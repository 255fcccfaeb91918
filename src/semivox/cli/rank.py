"""`rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from semivox.cli import options as o
from semivox.progress import show_progress

_SHOWN = 8


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    o.command(app, rank)


def rank(
    model: Annotated[
        list[Path], typer.Option("--model", "-m", help="run folder (repeatable: probabilities are averaged)")
    ],
    data: o.Data,
    out: Annotated[Path, typer.Option("--output", "-o", help="folder for rank.csv and rank.png")] = Path(
        "rank"
    ),
    by: Annotated[
        Literal["uncertainty", "diversity", "both", "random"],
        typer.Option("--by", help="low predicted Dice, unlike all others, both, or by chance as a control"),
    ] = "both",
    seed: Annotated[int, typer.Option("--seed", help="of --by random")] = 0,
    device: o.Device = "auto",
) -> None:
    """Rank unlabeled scans: which to annotate next. No label file is opened."""
    from semivox import api
    from semivox.cli import show

    table = api.rank(model, data, out, by=by, seed=seed, device=device, progress=show_progress)
    rows = table.head(_SHOWN)[["case", "uncertainty", "distance", "reasons"]].itertuples(index=False)
    shown = [(name, f"{doubt:.3f}", f"{far:.2f}", reasons) for name, doubt, far, reasons in rows]
    show.put(show.table("case", "uncertainty", "distance", "reasons", rows=shown, wrap=True))
    typer.echo(f"{len(table)} scans in {out / 'rank.csv'}; the first ones: {out / 'rank.png'}")
    note = "when the first ones are annotated"
    o.next_command("train", "-d", data, "--init", model[0], "-o", "NEW_RUN", note=note)
