"""`train` and `demo`."""

from __future__ import annotations

import typer

from semivox.cli import options as o


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    o.command(app, train, api="train", fields=o.SPLIT | o.TRAIN, layers=True)
    o.command(app, demo, api="demo", without=["train", "test"], flags={"out": "--output --out -o"})


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
