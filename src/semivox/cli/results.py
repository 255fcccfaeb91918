"""`predict`, `evaluate`, `report`, `rank` and `export`: what follows on training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semivox.cli import options as o
from semivox.errors import UserError

_AS_DATASET = (
    "--input is the model's data set: write it as nnU-Net raw, with predictions as labels of unlabeled cases"
)
_SHOWN = 8  # scans of a ranking
_ANY_DATASET = {"model", "source", "out", "overwrite", "device", "as_dataset"}  # what --as-dataset takes


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    read = {"source": "--input -i", "predictions": "--input -i", "references": "--references -r"}
    o.command(app, predict, api="predict", fields=o.WINDOW, flags=read)
    o.command(app, evaluate, api="evaluate", flags={**read, "regions": "--region"})
    o.command(app, report, api="report", flags=read)
    o.command(app, rank, api="rank")
    group = typer.Typer(help="Write segmentations in the form that other systems want.", no_args_is_help=True)
    group.callback()(lambda: None)
    flags = {
        "segmentation": "SEGMENTATION", "dicom": "--dicom -d", "classes": "--class",
        "codes": "--segment-codes", "origin": "--made-by",
    }  # fmt: skip
    o.command(group, dicom_seg, "dicom-seg", api="export_dicom_seg", flags=flags)
    app.add_typer(group, name="export")


def predict(
    call: o.Call, as_dataset: Annotated[bool, typer.Option("--as-dataset", help=_AS_DATASET)] = False
) -> None:
    """Segment scans; results lie on the scanner's grid, with the original label values.

    How the model predicts (--window to --postprocess) is as in its training, unless given here.
    """
    from semivox.cli.show import counted

    given, window = call.given, call.sections.get("predict", {})
    if as_dataset:
        call.refuse("--as-dataset", call.flags.keys() - call.fields.keys() - _ANY_DATASET)
        if len(given["model"]) > 1:
            raise UserError("--as-dataset is for one model", f"{len(given['model'])} models", "one -m RUN")
        made = call("pseudo_label", model=given["model"][0], data=given["source"], config=window)
        where = f"in {given['out']}; dataset.json tells which labels are predicted"
        typer.echo(f"{counted(len(made.cases), 'training case')} {where}")
        o.next_command("prepare", "-d", given["out"], note="or nnUNetv2_plan_and_preprocess")
        return
    written = call(config=window)
    also = ", also as .seg.dcm" if given.get("dicom_seg") else ""
    typer.echo(f"{counted(len(written), 'segmentation')} in {given['out']}{also}")
    _show_quality(given["out"])
    o.next_command("evaluate", "-i", given["out"], "-d", "DATA", note="if there are reference labels")


def _show_quality(out: Path) -> None:
    """Name the segmentations that somebody should look at first."""
    from semivox.inference.outputs import QUALITY, doubtful

    flagged = doubtful(out / QUALITY)
    for case, why in flagged[:3]:
        typer.echo(f"look at {case}: {why}")
    more = f"{len(flagged)} to look at first, " if flagged else ""
    typer.echo(f"{more}all in {out / QUALITY}")


def evaluate(
    call: o.Call,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="RUN", help="also write report.html, about this run's predictions"),
    ] = None,
) -> None:
    """Score predictions: metrics.csv, summary.json and a table with 95 % intervals over cases."""
    from semivox.cli import show

    if report is not None:
        from semivox.reporting.page.source import read_run

        read_run(report)  # a run that is not there is told of before the scores are computed
    show.scores(call())
    folder = call.given["out"] or call.given["predictions"]
    typer.echo(f"written: {folder / 'metrics.csv'} and summary.json")
    if report is not None:
        typer.echo(f"report with pictures: {call('report', model=report, predictions=folder, out=None)}")


def report(
    call: o.Call,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="run folder")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="several runs: --compare RUN RUN ...")] = False,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="with --compare: run folders, or folders of predictions"),
    ] = None,
) -> None:
    """Write one HTML page: what was trained on what, scores, worst cases, a viewer. It needs no network."""
    if compare:
        call.refuse("--compare", {"model", "predictions", "images"})
        written = call("compare_runs", runs=runs or [])
    elif model is None or runs:
        found = f"{runs[0]}" if runs else "no run"
        do = "semivox report -m RUN, or semivox report --compare RUN RUN"
        raise UserError("Which run is the report about?", found, "-m RUN", do)
    else:
        written = call(model=model)
    typer.echo(f"report: {written}")


def rank(call: o.Call) -> None:
    """Rank unlabeled scans: which to annotate next. No label file is opened."""
    from semivox.cli import show

    table, out = call(), call.given["out"]
    rows = table.head(_SHOWN)[["case", "uncertainty", "distance", "reasons"]].itertuples(index=False)
    shown = [(name, f"{doubt:.3f}", f"{far:.2f}", reasons) for name, doubt, far, reasons in rows]
    show.put(show.table("case", "uncertainty", "distance", "reasons", rows=shown, left=4))
    scans = show.counted(len(table), "scan")
    typer.echo(f"{scans} in {out / 'rank.csv'}; the first ones: {out / 'rank.png'}")
    again = ("-d", call.given["data"], "--init", call.given["model"][0], "-o", "NEW_RUN")
    o.next_command("train", *again, note="when the first ones are annotated")


def dicom_seg(call: o.Call) -> None:
    """Write a label map as DICOM-SEG, with references to the series it was drawn on."""
    typer.echo(f"written: {call()}")
