"""`methods`."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(methods)


def methods(
    name: Annotated[str | None, typer.Argument(help="show this one with its options")] = None,
    cite: Annotated[
        str | None, typer.Option("--cite", help="print the BibTeX of a method", metavar="NAME")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything, for programs")] = False,
) -> None:
    """List the training methods; with a name, its idea, its options and their defaults."""
    from semivox.methods import catalogue as verb

    if cite is not None:
        typer.echo(verb.cite(cite))
    elif as_json:
        import json

        found = verb.list_methods() if name is None else {name: verb.describe_method(name)}
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
    elif name is None:
        _show_all(verb.list_methods())
    else:
        _show_one(name, verb.describe_method(name))


def _show_all(index: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("what it is")
    for name, entry in index.items():
        table.add_row(Text(name), Text(entry["summary"]))
    Console().print(table)
    typer.echo("\nOptions: semivox methods NAME. BibTeX: semivox methods --cite NAME.")


def _show_one(name: str, entry: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from semivox.methods.catalogue import patches, shown

    console = Console()
    console.print(Text(name, style="bold"))
    for text in (entry["summary"], *entry["text"], entry["source"] and f"Source: {entry['source']}"):
        if text:
            console.print(Text(text))
    console.print(Text(f"Patches a step: {patches(entry)}\n"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("option", "default", "meaning"):
        table.add_column(heading, no_wrap=heading == "option")
    for option in entry["options"]:
        meaning = f"{option['description']} ({option['values']})"
        table.add_row(Text(option["name"]), Text(shown(option["default"])), Text(meaning))
    console.print(table)
    first = entry["options"][0] if entry["options"] else None
    if first:
        typer.echo(f"\nSet one: --set method.options.{first['name']}={shown(first['default'])}")
