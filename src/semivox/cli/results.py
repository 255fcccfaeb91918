"""`predict`, `evaluate` and `export`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from semivox.cli import options as o
from semivox.cli.values import class_values
from semivox.errors import UserError
from semivox.progress import show_progress

MadeBy = Literal["automatic", "semiautomatic", "manual"]
_ORIGINS: dict[str, Any] = {name: name.upper() for name in get_args(MadeBy)}


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    o.command(app, predict)
    o.command(app, evaluate)
    group = typer.Typer(help="Write segmentations in the form that other systems want.", no_args_is_help=True)
    group.callback()(lambda: None)
    o.command(group, dicom_seg, "dicom-seg")
    app.add_typer(group, name="export")


def predict(
    model: Annotated[
        list[Path], typer.Option("--model", "-m", help="run folder (repeatable: probabilities are averaged)")
    ],
    source: Annotated[
        Path, typer.Option("--input", "-i", help="a scan or a folder of scans: NIfTI, NRRD, MetaImage, DICOM")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", help="folder for the segmentations")],
    window: Annotated[
        Literal["patch", "whole"] | None,
        typer.Option("--window", help="patches of the training size, or one pass over the whole scan"),
    ] = None,
    stride: Annotated[
        tuple[int, int, int] | None,
        typer.Option("--stride", help="window stride in voxels, instead of --overlap"),
    ] = None,
    overlap: Annotated[
        float | None, typer.Option("--overlap", help="share of a window that overlaps the next")
    ] = None,
    weighting: Annotated[
        Literal["uniform", "gaussian"] | None, typer.Option("--weighting", help="of the voxels of a window")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="windows a forward pass")] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="also write CASE.npz")
    ] = False,
    save_members: Annotated[
        bool, typer.Option("--save-members", help="also write each network's result")
    ] = False,
    save_uncertainty: Annotated[
        bool, typer.Option("--save-uncertainty", help="also write CASE_uncertainty.nii.gz, 0 to 1")
    ] = False,
    tta: Annotated[
        bool, typer.Option("--tta", help="average over five small changes of each scan: 5 times the time")
    ] = False,
    postprocess: Annotated[
        bool,
        typer.Option("--postprocess/--no-postprocess", help="the clean-up that helped on validation cases"),
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace another model's predictions")
    ] = False,
    series: o.Series = None,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="also write CASE.seg.dcm; --input has to be DICOM")
    ] = False,
    codes: o.SegmentCodes = None,
    as_dataset: Annotated[
        bool,
        typer.Option(
            "--as-dataset",
            help="--input is the model's data set: write it as nnU-Net raw, with predictions as labels of"
            " unlabeled cases",
        ),
    ] = False,
    trust_image_geometry: o.TrustGeometry = False,
    device: o.Device = "auto",
) -> None:
    """Segment scans; results lie on the scanner's grid, with the original label values."""
    from semivox import api

    changes = {"window": window, "stride": stride, "overlap": overlap, "weighting": weighting, "batch": batch}
    changes |= {"tta": tta or None, "postprocess": None if postprocess else False}
    config = {name: value for name, value in changes.items() if value is not None}
    if as_dataset:
        alone = {
            "--dicom-seg": dicom_seg, "--series": series, "--segment-codes": codes, "--overwrite": overwrite,
            "--save-probabilities": save_probabilities, "--save-members": save_members,
            "--save-uncertainty": save_uncertainty, "a second --model": len(model) > 1,
            "--trust-image-geometry": trust_image_geometry,
        }  # fmt: skip
        if useless := [name for name, value in alone.items() if value]:
            raise UserError(
                "--as-dataset has no use for another option", useless[0], do=f"leave out {useless[0]}"
            )
        made = api.pseudo_label(model[0], source, out, config=config, device=device, progress=show_progress)
        typer.echo(
            f"{len(made.cases)} training cases in {out}; dataset.json tells which labels are predicted"
        )
        o.next_command("prepare", "-d", out, note="or nnUNetv2_plan_and_preprocess")
        return
    written = api.predict(
        model, source, out, config=config, save_probabilities=save_probabilities, save_members=save_members,
        save_uncertainty=save_uncertainty,
        overwrite=overwrite, trust_image_geometry=trust_image_geometry, series=series, dicom_seg=dicom_seg,
        segment_codes=codes, device=device, progress=show_progress,
    )  # fmt: skip
    typer.echo(f"{len(written)} segmentations in {out}" + (", also as .seg.dcm" if dicom_seg else ""))
    _show_quality(out)
    o.next_command("evaluate", "-i", out, "-d", "DATA", note="if there are reference labels")


def _show_quality(out: Path) -> None:
    """Name the segmentations that somebody should look at first."""
    with (out / "quality.csv").open(newline="", encoding="utf-8") as stream:
        flagged = [row for row in csv.DictReader(stream) if row["flag"]]
    for row in flagged[:3]:
        typer.echo(f"look at {row['case']}: predicted Dice {row['predicted_dice'] or '?'} ({row['reasons']})")
    more = f"{len(flagged)} to look at first, " if flagged else ""
    typer.echo(f"{more}all in {out / 'quality.csv'}")


def evaluate(
    predictions: Annotated[Path, typer.Option("--input", "-i", help="folder of predictions")],
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="data set with the reference labels")
    ] = None,
    references: Annotated[
        Path | None, typer.Option("--references", "-r", help="or a folder of reference labels")
    ] = None,
    cases: Annotated[
        Literal["test", "val"], typer.Option("--cases", help="which cases of the data set")
    ] = "test",
    split_file: Annotated[
        Path | None, typer.Option("--split-file", help="names the validation cases")
    ] = None,
    out: Annotated[Path | None, typer.Option("--output", "-o", help="folder for the tables")] = None,
    largest_component: Annotated[bool, typer.Option(help="also score the largest component")] = True,
    profile: Annotated[
        Literal["semivox", "published"],
        typer.Option(
            "--profile", help="published: voxel units, failures at distance 0, as older papers score"
        ),
    ] = "semivox",
    nsd_tolerance_mm: Annotated[
        float, typer.Option("--nsd-tolerance-mm", help="tolerance of the normalised surface Dice")
    ] = 1.0,
    trust_image_geometry: o.TrustGeometry = False,
    region: Annotated[
        list[str] | None,
        typer.Option(
            "--region",
            metavar="NAME=1,2",
            help="also score this union of label values (repeatable); default: those of the data set",
        ),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option("--ignore", help="label value of voxels that are not annotated [default: as declared]"),
    ] = None,
    workers: o.Workers = 2,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="RUN", help="also write report.html, about this run's predictions"),
    ] = None,
) -> None:
    """Score predictions: metrics.csv, summary.json and a table with 95 % intervals over cases."""
    from semivox import api
    from semivox.cli import show

    table = api.evaluate(
        predictions, data=data, references=references, cases=cases, split_file=split_file, out=out,
        largest_component=largest_component, profile=profile, nsd_tolerance_mm=nsd_tolerance_mm,
        trust_image_geometry=trust_image_geometry, regions=tuple(region or ()) or None,
        ignore=ignore, workers=workers, progress=show_progress,
    )  # fmt: skip
    show.scores(table)
    typer.echo(f"written: {(out or predictions) / 'metrics.csv'} and summary.json")
    if report is not None:
        written = api.report(report, out or predictions, progress=show_progress)
        typer.echo(f"report with pictures: {written}")


def dicom_seg(
    segmentation: Annotated[Path, typer.Argument(help="a label map: NIfTI, NRRD or MetaImage")],
    dicom: Annotated[Path, typer.Option("--dicom", "-d", help="folder of the series, or a multi-frame file")],
    out: Annotated[Path, typer.Option("--output", "-o", help="name of the result, ending in .dcm")],
    series: o.Series = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME=VALUE",
            help="a class and its value (default: those in semivox.json beside the label map)",
        ),
    ] = None,
    codes: o.SegmentCodes = None,
    made_by: Annotated[
        MadeBy | None,
        typer.Option("--made-by", help="automatic: by a model; semiautomatic: then corrected by a person"),
    ] = None,
) -> None:
    """Write a label map as DICOM-SEG, with references to the series it was drawn on."""
    from semivox import api

    values = class_values(classes) if classes else None
    written = api.export_dicom_seg(
        segmentation, dicom, out, series=series, classes=values, codes=codes,
        origin=_ORIGINS.get(made_by or ""),
    )  # fmt: skip
    typer.echo(f"written: {written}")
