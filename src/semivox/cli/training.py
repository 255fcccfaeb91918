"""`train`, and comparisons: `demo`, `benchmark`, `methods`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semivox.cli import options as o
from semivox.errors import UserError

_ABLATIONS = "modules, distance, contrast, percentile, tau, temperature, beta"
_ITEMS = "table1 to table7, figure1, figure5 to figure8 of arXiv 2509.13084"
_LABELED = "number of labels, a fraction below 1, or all (repeatable)"
_GRID = {
    "method": "methods", "labeled": "labels", "seeds": "seeds", "preset": "presets",
    "settings": "assignments", "cases": "cases",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    o.command(app, train, api="train", fields=o.SPLIT | o.TRAIN, layers=True)
    o.command(app, demo, api="demo", without=["train", "test"], flags={"out": "--output --out -o"})
    o.command(app, benchmark, api="benchmark")
    o.command(app, methods)


def train(call: o.Call) -> None:
    """Train a model from few labels and many scans. The same command again resumes an interrupted run.

    Settings that are not given come from the preset, or from the method.
    """
    if call.given["budget"] is not None:
        call.refuse("--budget", {"iterations"})
    folder = call()
    typer.echo(f"trained: {folder}")
    if folder.report.is_file():
        from semivox.cli import show

        show.scores(folder.scores)
        typer.echo(f"report with pictures: {folder.report}")
    if call.given["diagnose"]:
        typer.echo(f"diagnosis: {folder / 'diagnosis' / 'diagnosis.png'}")
    o.next_command("predict", "-m", folder, "-i", "FOLDER_WITH_SCANS", "-o", folder / "predictions")


def demo(call: o.Call) -> None:
    """Train on phantoms, 4 of 40 labeled, with and without the unlabeled ones; compare on 20 others."""
    from semivox.cli import show

    result = call()
    show.comparison(result.tables, "20 phantoms that no training saw; 4 labels of 40")
    (difference,) = result.tables.comparisons.to_dict("records")
    typer.echo(f"{show.verdict(difference)} (one seed). Picture: {result.picture}")
    o.next_command("train", "-d", "YOUR_FOLDER")


def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="show this one with its options")] = None,
    cite: Annotated[str | None, typer.Option(help="print the BibTeX of a method", metavar="NAME")] = None,
    json: o.Json = False,
) -> None:
    """List the training methods; with a name, its idea, its options and their defaults."""
    from semivox.cli import show
    from semivox.methods import catalogue

    if cite is not None:
        if name is not None or json:
            do = f"leave out {'--json' if name is None else name}"
            raise UserError("--cite has no use for another option", do=do)
        typer.echo(catalogue.cite(cite))
        return
    found = catalogue.list_methods() if name is None else {name: catalogue.describe_method(name)}
    if json:
        show.print_json(found)
    elif name is None:
        rows = [(key, entry["summary"]) for key, entry in found.items()]
        show.put(show.table("method", "what it is", rows=rows, left=2))
        typer.echo("\nOptions: semivox methods NAME. BibTeX: semivox methods --cite NAME.")
    else:
        _show_one(name, found[name])


def _show_one(name: str, entry: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from semivox.cli import show
    from semivox.methods.catalogue import patches, shown

    console, source = Console(), entry["source"] and f"Source: {entry['source']}"
    console.print(Text(name, style="bold"))
    for text in (entry["summary"], *entry["text"], source, f"Patches a step: {patches(entry)}\n"):
        if text:
            console.print(Text(text))
    if entry["options"]:
        rows = [
            (option["name"], shown(option["default"]), f"{option['description']} ({option['values']})")
            for option in entry["options"]
        ]
        show.put(show.table("option", "default", "meaning", rows=rows, left=3))
        first = entry["options"][0]
        assignment = shlex.quote(f"method.options.{first['name']}={shown(first['default'])}")
        typer.echo(f"\nSet one: --set {assignment}")


def benchmark(
    call: o.Call,
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", help="folder of scans or a workspace (repeatable with --paper)"),
    ],
    grid: Annotated[
        Path | None, typer.Option("--grid", "-g", help="YAML file: methods, labels, seeds ...")
    ] = None,
    ablation: Annotated[str | None, typer.Option(help=f"shipped grid: {_ABLATIONS}")] = None,
    paper: Annotated[str | None, typer.Option(metavar="ITEM", help=_ITEMS)] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="a method, or a row of the grid by its label (repeatable)"),
    ] = None,
    labeled: Annotated[
        list[float] | None, typer.Option("--labeled", "-l", parser=o.number, metavar="N", help=_LABELED)
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="number of seeds")] = None,
    preset: Annotated[list[str] | None, typer.Option("--preset", "-p", help="settings (repeatable)")] = None,
    settings: o.SetOption = None,
    cases: Annotated[
        Literal["test", "val"] | None, typer.Option("--cases", help="which cases are scored (default: test)")
    ] = None,
    isolate: Annotated[bool, typer.Option(help="run each cell in a process of its own")] = True,
) -> None:
    """Compare methods over label counts, seeds and presets. The same command again resumes."""
    from semivox.cli import show

    given = call.given
    changes = {key: given[name] for name, key in _GRID.items() if given[name] not in (None, [])}
    run: dict[str, Any] = {"say": lambda line: typer.echo(line, err=True)}
    if paper is not None:
        call.refuse("--paper", {"grid", "ablation", "published"})
        made = call("replicate", item=paper, data=tuple(data), changes=changes, **run)
        outcomes, written = made.outcomes, f" in {given['out']}: {', '.join(made.files)}"
    elif len(data) > 1:
        raise UserError("Several data sets go with --paper only", f"{len(data)} data sets", "one -d FOLDER")
    else:
        resolved = call("load_grid", file=grid, changes=changes)
        outcomes = {"": call(data=data[0], grid=resolved, **run)}
        names = "table.tex, table.csv, runs.csv, comparisons.csv, dice-*.png"
        written = outcomes[""].tables and f": {given['out'] / 'table.md'}, {names}"
    if given["dry_run"]:
        for name, found in outcomes.items():
            if name:
                show.text(name)
            show.forecast(found.forecast, given["max_hours"])
        return
    failed, left = dict[str, str](), list[str]()
    for name, found in outcomes.items():
        show.outcome(found)
        start = name and f"{name}, "
        failed |= {f"{start}{cell}": why for cell, why in found.failed.items()}
        left += [f"{start}{cell}" for cell in found.left]
    if written:
        show.text(f"written{written}")
    _end(failed, left)


def _end(failed: dict[str, str], left: list[str]) -> None:
    """Say what is missing, and how to resume; exit code 1 after a failure."""
    for name, why in failed.items():
        typer.echo(f"failed: {name}: {why}", err=True)
    if left:
        typer.echo(f"left for lack of time: {len(left)} cells, the first is {left[0]}")
    if failed or left:
        o.next_command(*sys.argv[1:])
    if failed:
        raise typer.Exit(1)
