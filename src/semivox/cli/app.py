"""The `semivox` command: one application of all commands.

Nothing here imports torch: each command imports what it runs when it is called, so `--help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from semivox.cli import data, results, training
from semivox.progress import use_json
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


def _version(value: bool) -> None:
    if value:
        typer.echo(f"semivox {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
    json_progress: Annotated[
        bool, typer.Option("--json-progress", help="progress as JSON, one object a line on stderr")
    ] = False,
) -> None:
    """Options of every command; `semivox.cli.main` looks for --debug itself."""
    if json_progress:
        use_json()


for _module in (data, training, results):
    _module.register(app)
