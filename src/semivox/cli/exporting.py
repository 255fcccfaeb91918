"""`export`: segmentations in the form that other systems want."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import typer

from semivox.cli import options as o

MadeBy = Literal["automatic", "semiautomatic", "manual"]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(help="Segmentations in the form that other systems want.", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("dicom-seg")(dicom_seg)
    app.add_typer(group, name="export")


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
            help="a class and its value [default: those in semivox.json beside the label map]",
        ),
    ] = None,
    codes: o.SegmentCodes = None,
    made_by: Annotated[
        MadeBy | None,
        typer.Option("--made-by", help="automatic: by a model; semiautomatic: then corrected by a person"),
    ] = None,
) -> None:
    """Write a label map as DICOM-SEG, with references to the series it was drawn on."""
    from semivox.export.dicom_seg import export_dicom_seg
    from semivox.io.dicom_write import Origin

    origin = made_by.upper() if made_by else None
    assert origin is None or origin in get_args(Origin)
    written = export_dicom_seg(
        segmentation,
        dicom,
        out,
        series=series,
        classes=o.class_values(classes) if classes else None,
        codes=codes,
        origin=cast(Origin | None, origin),
    )
    typer.echo(f"written: {written}")
