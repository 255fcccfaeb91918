"""`train`, `demo` and `methods`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from semivox.cli import options as o


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    o.command(app, train, api="train", fields=o.SPLIT | o.TRAIN, layers=True)
    o.command(app, demo, api="demo", without=["train", "test"], flags={"out": "--output --out -o"})
    o.command(app, methods)


def train(call: o.Call) -> None:
    """Train a model from few labels and many scans. The same command again resumes an interrupted run."""
    folder = call()
    typer.echo(f"trained: {folder}")
    if folder.report.is_file():
        from semivox.cli import show

        show.scores(folder.scores)
        typer.echo(f"report with pictures: {folder.report}")
    if call.arguments.get("diagnose"):
        typer.echo(f"diagnosis: {folder / 'diagnosis' / 'diagnosis.png'}")
    o.next_command("predict", "-m", folder, "-i", "FOLDER_WITH_SCANS", "-o", folder / "predictions")


def demo(call: o.Call) -> None:
    """Train on phantoms, 4 of 40 labeled, with and without the unlabeled ones; compare on 20 others."""
    from semivox.cli import show

    result = call()
    show.comparison(result.summary, "20 phantoms that no training saw; 4 labels of 40")
    typer.echo(
        f"{show.verdict(result.summary['difference']['self_training'])} (one seed). Picture: {result.picture}"
    )
    o.next_command("train", "-d", "YOUR_FOLDER")


def methods(
    name: Annotated[str | None, typer.Argument(help="show this one with its options")] = None,
    cite: Annotated[
        str | None, typer.Option("--cite", help="print the BibTeX of a method", metavar="NAME")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="everything, for programs")] = False,
) -> None:
    """List the training methods; with a name, its idea, its options and their defaults."""
    from semivox.cli import show
    from semivox.methods import catalogue

    if cite is not None:
        typer.echo(catalogue.cite(cite))
        return
    found = catalogue.list_methods() if name is None else {name: catalogue.describe_method(name)}
    if json:
        show.print_json(found)
    elif name is None:
        rows = [(key, entry["summary"]) for key, entry in found.items()]
        show.put(show.table("method", "what it is", rows=rows, left=2, wrap=True))
        typer.echo("\nOptions: semivox methods NAME. BibTeX: semivox methods --cite NAME.")
    else:
        _show_one(name, found[name])


def _show_one(name: str, entry: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    from semivox.cli import show
    from semivox.methods.catalogue import patches, shown

    console = Console()
    console.print(Text(name, style="bold"))
    for text in (entry["summary"], *entry["text"], entry["source"] and f"Source: {entry['source']}"):
        if text:
            console.print(Text(text))
    console.print(Text(f"Patches a step: {patches(entry)}\n"))
    rows = [
        (option["name"], shown(option["default"]), f"{option['description']} ({option['values']})")
        for option in entry["options"]
    ]
    if rows:
        show.put(show.table("option", "default", "meaning", rows=rows, left=3, wrap=True))
        first = entry["options"][0]
        typer.echo(f"\nSet one: --set method.options.{first['name']}={shown(first['default'])}")
