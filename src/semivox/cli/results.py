"""`predict` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from semivox.cli import options as o
from semivox.errors import UserError


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(predict)
    app.command()(evaluate)


def predict(
    model: Annotated[Path, typer.Option("--model", "-m", help="run folder")],
    source: Annotated[
        Path,
        typer.Option(
            "--input", "-i", help="a scan or a folder of scans: NIfTI, NRRD, MetaImage or DICOM series"
        ),
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
    weighting: Annotated[str | None, typer.Option("--weighting", help="uniform or gaussian")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="windows a forward pass")] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="also write CASE.npz")
    ] = False,
    save_members: Annotated[
        bool, typer.Option("--save-members", help="also write each network's result")
    ] = False,
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
    if as_dataset and (dicom_seg or series):
        raise UserError(
            "A data set is written as NIfTI",
            found="--as-dataset together with --dicom-seg or --series",
            expected="one or the other",
            do="call semivox predict twice",
        )
    if codes and not dicom_seg:
        raise UserError("--segment-codes are for DICOM-SEG", do="add --dicom-seg")
    from semivox.inference.model import load_model
    from semivox.inference.predict import changed_settings
    from semivox.inference.predict import predict as run
    from semivox.progress import show_progress

    loaded = load_model(model, device=device)
    settings = changed_settings(
        loaded, window=window, stride=stride, overlap=overlap, weighting=weighting, batch=batch
    )
    if as_dataset:
        from semivox.inference.pseudo_label import pseudo_label

        made = pseudo_label(model, source, out, config=settings, device=device, progress=show_progress)
        typer.echo(
            f"{len(made.cases)} training cases in {out}; dataset.json tells which labels are predicted"
        )
        o.next_command(f"semivox prepare -d {out}   (or nnUNetv2_plan_and_preprocess)")
        return
    written = run(
        loaded,
        source,
        out,
        config=settings,
        save_probabilities=save_probabilities,
        save_members=save_members,
        overwrite=overwrite,
        trust_image_geometry=trust_image_geometry,
        series=series,
        dicom_seg=dicom_seg,
        segment_codes=codes,
        progress=show_progress,
    )
    typer.echo(f"{len(written)} segmentations in {out}" + (", also as .seg.dcm" if dicom_seg else ""))
    o.next_command(f"semivox evaluate -i {out} -d DATA   (if reference labels exist)")


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
            "--profile", help="published: voxel units, failures as zero distance, as older papers score"
        ),
    ] = "semivox",
    nsd_tolerance_mm: Annotated[float, typer.Option("--nsd-tolerance-mm")] = 1.0,
    trust_image_geometry: o.TrustGeometry = False,
    region: Annotated[
        list[str] | None,
        typer.Option(
            "--region",
            help="NAME=1,2,4: score this union of label values too (repeatable); default: the data set's",
        ),
    ] = None,
    workers: o.Workers = 2,
) -> None:
    """Score predictions: metrics.csv, summary.json and a table with 95 % intervals over cases."""
    from semivox.cli.show import show_scores
    from semivox.datasets.regions import parse_regions
    from semivox.evaluation.folder import evaluate as run
    from semivox.progress import show_progress

    table = run(
        predictions,
        data=data,
        references=references,
        cases=cases,
        split_file=split_file,
        out=out,
        largest_component=largest_component,
        profile=profile,
        nsd_tolerance_mm=nsd_tolerance_mm,
        trust_image_geometry=trust_image_geometry,
        regions=parse_regions(region or ()),
        workers=workers,
        progress=show_progress,
    )
    show_scores(table)
    typer.echo(f"written: {(out or predictions) / 'metrics.csv'} and summary.json")
