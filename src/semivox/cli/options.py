"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semivox.errors import UserError

if TYPE_CHECKING:
    from semivox.config import Config

Data = Annotated[
    Path, typer.Option("--data", "-d", help="folder of scans (nnU-Net raw or MSD layout) or a workspace")
]
DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA", help="folder of scans (nnU-Net raw or MSD layout) or a workspace")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
Work = Annotated[
    Path | None,
    typer.Option("--work", help="workspace for plan and prepared scans [default: semivox-work/NAME]"),
]
Preset = Annotated[str | None, typer.Option("--preset", "-p", help="shipped settings, e.g. la-8-lite")]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="one setting, e.g. train.lr=0.02 (repeatable)", metavar="A.B=C"),
]
Labeled = Annotated[
    float | None, typer.Option("--labeled", "-l", help="labels to use: a number, or a fraction below 1")
]
Val = Annotated[int | None, typer.Option("--val", help="training cases kept for validation")]
SplitSeed = Annotated[int | None, typer.Option("--split-seed", help="shuffle before splitting")]
SplitFile = Annotated[
    Path | None, typer.Option("--split-file", help="splits.json or splits_final.json to use")
]
Fold = Annotated[int | None, typer.Option("--fold", "-f", help="which fold of the split file")]
Workers = Annotated[int, typer.Option("--workers", help="processes; 0 works in this process")]
Fresh = Annotated[bool, typer.Option("--fresh", help="start over: delete what an earlier call wrote")]
TrustGeometry = Annotated[
    bool,
    typer.Option(
        "--trust-image-geometry",
        help="where affines disagree, use the image's (of the first channel) if the shapes agree",
    ),
]
SegmentCodes = Annotated[
    Path | None,
    typer.Option("--segment-codes", help="YAML or JSON for DICOM-SEG: class name to value, scheme, meaning"),
]
Series = Annotated[
    str | None,
    typer.Option("--series", help="DICOM series to take of a folder: its number, description or uid"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or gpu")]


def settings_from(
    preset: str | None,
    file: Path | None,
    settings: list[str] | None,
    *,
    labeled: float | None = None,
    val: int | None = None,
    split_seed: int | None = None,
    split_file: Path | None = None,
    fold: int | None = None,
    **sections: dict[str, Any],
) -> Config:
    """Resolve the shared options into a `Config`."""
    from semivox.config import load_config

    split = {
        "labeled": int(labeled) if labeled is not None and labeled >= 1 else labeled,
        "val": val,
        "seed": split_seed,
        "file": str(split_file) if split_file else None,
        "fold": fold,
    }
    return load_config(preset=preset, file=file, settings=settings or (), split=split, **sections)


def require_folder(data: Path) -> None:
    """Notice a mistyped folder before anything heavy is loaded."""
    if not data.is_dir():
        raise UserError(
            "There is no such folder",
            path=data,
            found="a file" if data.exists() else "nothing",
            expected="a folder of scans (nnU-Net raw or MSD layout) or a workspace",
            do="check the path given with --data",
        )


def seconds(text: str | None) -> float | None:
    """`90s`, `30m`, `1.5h` or a number of minutes, in seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if match is None or float(match[1]) == 0:
        raise UserError(
            "Unknown time", found=text, expected="a time such as 90s, 30m or 2h", do="e.g. --budget 30m"
        )
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


def class_values(texts: list[str] | tuple[str, ...]) -> dict[str, int]:
    """Read `NAME=VALUE` of each class."""
    result: dict[str, int] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            number = int(value)
        except ValueError:
            number = 0
        if not equals or not name.strip() or number == 0 or name.strip() in result:
            raise UserError(
                "A class is malformed",
                found=f"--class {text}",
                expected="--class NAME=VALUE, an integer other than 0, each name once",
                do="e.g. --class liver=1",
            )
        result[name.strip()] = number
    return result


def next_command(text: str) -> None:
    """Show what to type next."""
    from rich.console import Console

    Console(file=sys.stdout).print(f"next: {text}", soft_wrap=True, highlight=False, markup=False)
