"""From scans to a workspace: `import`, `fetch`, `info`, `check`, `plan`, `prepare`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semivox.cli import options as o
from semivox.errors import UserError
from semivox.files import read_json

if TYPE_CHECKING:
    from rich.table import Table

    from semivox.preprocessing.plan import Plan

_RECIPES = ("la2018", "pancreas-ct", "brats2019")
_SOURCE = "a folder, a CSV table or a scan; or la2018, pancreas-ct, brats2019 followed by RAW"
_NAMED = 3  # classes with a column of their own
_TITLE = (
    "Grids of features (* chosen): size of a scan on them, Dice that classes keep, patch in voxels of the"
    " working grid, share of a scan that it holds, time of a training step here:"
)


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    flags = {
        "images": "--images", "labels": "--labels", "channels": "--channel", "classes": "--class",
        "mirror": "--from", "name": "TASK",
    }  # fmt: skip
    o.command(app, import_, "import", api="import_dataset", flags=flags)
    o.command(app, fetch, api="fetch", flags={**flags, "out": "OUT"})
    o.command(app, info, api="info", fields=o.SPLIT)
    o.command(app, check, api="check", fields=o.SPLIT)
    o.command(app, plan, api="plan", fields=o.SPLIT, layers=True, without=["workers"])
    o.command(app, prepare, api="prepare", fields=o.SPLIT, layers=True)


def import_(
    call: o.Call,
    source: Annotated[str, typer.Argument(metavar="SOURCE|RECIPE", help=_SOURCE)],
    raw: Annotated[
        Path | None, typer.Argument(metavar="RAW", help="after a recipe: the data set as downloaded")
    ] = None,
) -> None:
    """Bring a data set in, as nnU-Net raw with NIfTI files.

    NIfTI layouts (nnU-Net raw, MSD) are indexed where they are; everything else is converted: pairs of images
    and labels by pattern, tables, h5, DICOM, NRRD, MetaImage. A case without a label file is unlabeled.
    """
    if raw is None and source in _RECIPES:
        do = f"semivox import {source} RAW -o OUT"
        raise UserError("The recipe needs the folder of the download", "nothing", "a folder", do)
    if raw is not None:
        call.refuse(source, {"kind"})
    made = call(source=source) if raw is None else call(source=raw, kind=source)
    train = made.pool("train")
    labels = sum(case.label is not None for case in train)
    typer.echo(
        f"{made.name}: {len(train)} training cases ({labels} with a label file),"
        f" {len(made.pool('extra'))} extra unlabeled, {len(made.pool('test'))} test;"
        f" channels {', '.join(made.channels)}; classes {', '.join(made.class_names[1:])}"
    )
    file = call.given["out"] / "import.json"
    record = read_json(file) if file.is_file() else {}
    for note in record.get("notes", ()):
        typer.echo(f"note: {note}")
    o.next_command("prepare", "-d", file.parent, *shlex.split(record.get("prepare", "")))


def fetch(call: o.Call) -> None:
    """Get a data set of the Medical Segmentation Decathlon; its checksum is verified before it is unpacked.

    Only this command uses the network, and with --from it does not.
    """
    folder = call()
    typer.echo(f"{folder.name} is in {folder}")
    o.next_command("prepare", "-d", folder)


def info(
    call: o.Call,
    data: Annotated[Path | None, typer.Option("--data", "-d", help=o.DATA)] = None,
    machine: Annotated[
        bool, typer.Option("--machine", help="measure this machine instead, in two minutes")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="with --machine: auto, cpu or gpu")] = "auto",
    json: o.Json = False,
) -> None:
    """Show what a data set looks like: shapes, voxel sizes, intensities, and class volumes of labeled cases.

    Of cases that the split calls unlabeled no label is opened, of test cases nothing.
    With `--machine`: the time of a training step of each preset, and the hours it would train.
    """
    from semivox.cli import show

    if machine == (data is not None):
        do = "semivox info -d DATA, or semivox info --machine"
        raise UserError("Either a data set or this machine is described", do=do)
    if not machine:
        call.refuse("--data", {"device"})
    else:
        call.refuse("--machine", call.flags.keys() - {"machine", "device", "json"})
        times = call("machine", device=device)
        show.print_json(times) if json else show.machine(times)
        return
    found = call(data=data)
    if json:
        show.print_json(found.as_dict())
        return
    show.information(found)
    if figure := call.given.get("figure"):
        typer.echo(f"picture: {figure}")
    o.next_command("check", "-d", data, *call.again())


def check(call: o.Call, json: o.Json = False) -> None:
    """Read every file once and report all problems, each with its file and what to do.

    Exit code 0: no errors (there may be warnings); 1: errors; 2: the data set cannot be read at all.
    """
    from semivox.cli import show

    result = call()
    if json:
        show.print_json(result.as_dict())
    else:
        show.problems(result)
        if not result.errors:
            o.next_command("prepare", "-d", call.given["data"], *call.again())
    raise typer.Exit(int(result.errors > 0))


def plan(call: o.Call) -> None:
    """Choose working grid, normalisation and patch from the scans and the labels (plans.json, editable).

    The table compares grids of features: what labels keep when they are averaged to them and back, how much
    of a scan a training patch holds, and how long a training step would take on this machine.
    """
    from semivox.training.machine import grid_steps

    workspace, split, made = call()
    typer.echo(
        f"{len(split.labeled)} labeled, {len(split.unlabeled)} unlabeled, {len(split.val)} validation,"
        f" {len(split.test)} test cases ({split.how})"
    )
    _show_plan(made, grid_steps(call.config, made) if made.grids else ())
    note = f"you may edit {workspace.plan_file} before"
    o.next_command("prepare", "-d", workspace.folder, *call.again(), note=note)


def prepare(call: o.Call) -> None:
    """Resample, normalise and store the training scans; look at the pictures in WORKSPACE/overlays."""
    workspace, split, _ = call()
    counts = f"{len(split.labeled)} labeled and {len(split.unlabeled)} unlabeled"
    typer.echo(f"{counts} scans ready in {workspace.folder}")
    o.next_command("train", "-d", workspace.folder, "--method", call.config.method.name, *call.again())


def _show_plan(plan: Plan, steps: Sequence[float]) -> None:
    """Print each entry that has a reason, and the table of grids."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from semivox.cli.show import put

    console = Console()
    for name, reason in plan.reasons.items():
        value = getattr(plan, name, "")
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        shown = _sides(value) if isinstance(value, tuple) and len(value) == 3 else shown
        console.print(Text(f"{name}: ", style="bold") + Text(shown), soft_wrap=True)
        console.print(Padding(Text(reason), (0, 0, 0, 2)), highlight=False)
    if plan.grids:
        console.print(Text(_TITLE), highlight=False)
        put(_grids(plan, steps))


def _grids(plan: Plan, steps: Sequence[float]) -> Table:
    """Make the table of grids; of many classes only the one that keeps least."""
    from semivox.cli.show import table

    names, rows = plan.class_names[1:], []
    for row, step_s in zip(plan.grids, steps, strict=True):
        fidelity: dict[str, float] = row["fidelity"]
        kept = [f"{fidelity[name]:.3f}" if name in fidelity else "" for name in names]
        if len(names) > _NAMED:
            kept = ["{} {:.3f}".format(*min(fidelity.items(), key=lambda item: item[1]))]
        grid = f"{'*' if row['chosen'] else ' '}{_sides(row['spacing_mm'], 'x')} mm"
        scan, patch = ("x".join(map(str, row[name])) for name in ("voxels", "patch"))
        rows.append((grid, scan, *kept, patch, f"{row['share']:.0%}", f"{step_s:.2g} s"))
    heads = names if len(names) <= _NAMED else ("worst",)
    return table(" grid", "scan", *heads, "patch", "holds", "step", rows=rows)


def _sides(values: Sequence[Any], between: str = " x ") -> str:
    """Write three sides, or one where all are alike."""
    shown = [f"{side:.3g}" if isinstance(side, (int, float)) else str(side) for side in values]
    return shown[0] if len(set(shown)) == 1 else between.join(shown)
