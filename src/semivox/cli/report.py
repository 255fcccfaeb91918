"""`report` and `rank`: look at a result, and decide what to annotate next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from semivox.cli import options as o
from semivox.errors import UserError
from semivox.progress import show_progress

_SHOWN = 8  # scans of a ranking


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    o.command(app, report)
    o.command(app, rank)


def report(
    model: Annotated[Path | None, typer.Option("--model", "-m", help="run folder")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="its predictions, scored by evaluate (default: validation cases)"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file (default: report.html in that folder)")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="folder of the scans, if they have been moved")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="data set of the run, if it has been moved")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="several runs side by side: --compare RUN RUN ...")
    ] = False,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="with --compare: run folders, or folders of predictions"),
    ] = None,
) -> None:
    """Write one HTML page: what was trained on what, scores, worst cases, a viewer. It needs no network."""
    from semivox import api

    if compare:
        if given := [name for name, value in (("-m", model), ("-i", predictions)) if value is not None]:
            raise UserError(
                "--compare has no use for another option", given[0], "run folders", "leave it out"
            )
        written = api.compare_runs(runs or [], out or Path("comparison.html"), progress=show_progress)
    elif model is None or runs:
        found = f"{runs[0]}" if runs else "no run"
        do = "semivox report -m RUN, or semivox report --compare RUN RUN"
        raise UserError("Which run is the report about?", found, "-m RUN", do)
    else:
        written = api.report(model, predictions, out, images=images, data=data, progress=show_progress)
    typer.echo(f"report: {written}")


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
