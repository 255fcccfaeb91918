"""The `semivox` command: one application, one error policy.

Nothing here imports torch: each command imports what it runs when it is called, so `--help` answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

import typer

from semivox.errors import UserError
from semivox.version import __version__

app = typer.Typer(
    name="semivox",
    help="Semi-supervised 3D medical image segmentation: from a folder with few labels to segmentations."
    " Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_debug = False


def _version(value: bool) -> None:
    if value:
        typer.echo(f"semivox {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks of errors")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    """Options of every command."""
    global _debug  # noqa: PLW0603
    _debug = debug


for _module in (
    "importing",
    "data",
    "inspection",
    "training",
    "results",
    "exporting",
    "benchmark",
    "methods",
):
    import_module(f"semivox.cli.{_module}").register(app)


def main() -> None:
    """Run the command line; exit code 2 for what the user can fix, 130 when stopped by the user."""
    try:
        app()
    except UserError as error:
        if _debug:
            raise
        _show(error)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        sys.exit(130)


def _show(error: UserError) -> None:
    from rich.console import Console
    from rich.text import Text

    first, _, rest = str(error).partition("\n")
    console = Console(stderr=True)
    console.print(Text(f"Error: {first}", style="bold red"), soft_wrap=True)
    if rest:
        console.print(Text(rest), soft_wrap=True)
