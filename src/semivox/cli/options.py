"""Options that several commands share, and how they become settings."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from semivox.errors import Terminated, UserError

if TYPE_CHECKING:
    from semivox.config import Config

Data = Annotated[
    Path, typer.Option("--data", "-d", help="folder of scans (nnU-Net raw or MSD layout) or a workspace")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", "-d", help="folder of scans (nnU-Net raw or MSD layout) or a workspace"),
]
DataArgument = Annotated[Path | None, typer.Argument(metavar="[DATA]", help="the same as --data")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
Series = Annotated[
    str | None, typer.Option("--series", help="DICOM series to take: its number, description or UID")
]
SegmentCodes = Annotated[
    Path | None,
    typer.Option("--segment-codes", help="YAML or JSON for DICOM-SEG: class name to value, scheme, meaning"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or gpu")]
Workers = Annotated[int, typer.Option("--workers", help="worker processes; 0: work in this process")]
Fresh = Annotated[bool, typer.Option("--fresh", help="start over: delete what an earlier call wrote")]
TrustGeometry = Annotated[
    bool,
    typer.Option(
        "--trust-image-geometry",
        help="where affines disagree, use that of the (first) image if the shapes agree",
    ),
]


def number(text: str) -> int | float:
    """Read 8 as a number of cases and 0.1 as a fraction."""
    return int(text) if re.fullmatch(r"\s*[-+]?\d+\s*", text) else float(text)


LabeledList = Annotated[
    list[float] | None,
    typer.Option(
        "--labeled",
        "-l",
        parser=number,
        metavar="N",
        help="number of labels, or a fraction below 1 (repeatable)",
    ),
]


@dataclass(frozen=True)
class Split:
    """Which cases are labeled, and which geometry counts: options of every command that opens a data set."""

    labeled: Annotated[
        float | None,
        typer.Option(
            "--labeled", "-l", parser=number, metavar="N", help="number of labels, or a fraction below 1"
        ),
    ] = None
    val: Annotated[int | None, typer.Option("--val", help="training cases to keep for validation")] = None
    split_seed: Annotated[int | None, typer.Option("--split-seed", help="shuffle before splitting")] = None
    split_file: Annotated[
        Path | None, typer.Option("--split-file", help="splits.json or splits_final.json to use")
    ] = None
    fold: Annotated[
        int | None,
        typer.Option(
            "--fold", "-f", help="fold of the split file; without one, of a 5-fold cross-validation"
        ),
    ] = None
    trust_image_geometry: TrustGeometry = False

    def resolve(self, **sections: Any) -> Config:
        """Turn all options and these further sections into settings."""
        from semivox.api import load_config

        split = {"labeled": self.labeled, "val": self.val, "seed": self.split_seed, "fold": self.fold}
        file = None if self.split_file is None else str(self.split_file)
        plan = {"trust_image_geometry": self.trust_image_geometry or None}
        return load_config(**self._sources(), split={**split, "file": file}, plan=plan, **sections)

    def _sources(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Settings(Split):
    """All settings: options of `plan`, `prepare` and `train`."""

    preset: Annotated[str | None, typer.Option("--preset", "-p", help="shipped settings, e.g. lite")] = None
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings")] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="one setting, e.g. train.lr=0.02 (repeatable)"),
    ] = None
    work: Annotated[
        Path | None,
        typer.Option("--work", help="workspace for plan and prepared scans (default: semivox-work/NAME)"),
    ] = None

    def _sources(self) -> dict[str, Any]:
        return {"preset": self.preset, "file": self.config, "settings": self.settings or ()}

    def again(self) -> list[str]:
        """Return what was typed, for the next command, but for the workspace, which is then --data."""
        words: list[str] = []
        for name, value in vars(self).items():
            flag = "--set" if name == "settings" else "--" + name.replace("_", "-")
            if value is True:
                words.append(flag)
            elif name != "work" and value:
                words += [
                    word
                    for one in (value if isinstance(value, list) else [value])
                    for word in (flag, str(one))
                ]
        return words


def command(app: typer.Typer, function: Callable[..., None], name: str | None = None) -> None:
    """Add a command to `app`; a parameter that is a dataclass above stands for one option for each field."""
    kinds = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        kind = kinds[parameter.name]
        if not is_dataclass(kind):
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=kind))
            continue
        groups[parameter.name] = kind
        types = get_type_hints(kind, include_extras=True)
        parameters += [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=types[one.name]
            )
            for one in fields(kind)
        ]

    def call(**given: Any) -> None:
        for group, kind in groups.items():
            given[group] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        try:
            function(**given)
        except KeyboardInterrupt as stop:  # which Typer would turn into 130 also after SIGTERM
            raise SystemExit(143 if isinstance(stop, Terminated) else 130) from stop

    call.__doc__ = function.__doc__
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command(name or function.__name__)(call)


def one_data(data: Path | None, positional: Path | None) -> Path:
    """Return the data set that was named with --data or without it."""
    if (data is None) == (positional is None):
        found = "no data set" if data is None else f"{positional} and --data {data}"
        raise UserError("One data set is needed", found, "one folder", f"semivox {sys.argv[-1]} -d FOLDER")
    return data or positional or Path()


def seconds(text: str | None) -> float | None:
    """Read `90s`, `30m`, `1.5h`, or a number of minutes, as seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d+)?)\s*([smh]?)\s*", text, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise UserError("Unknown time", text, "a time such as 90s, 30m or 2h", "e.g. --budget 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


def class_values(texts: Sequence[str]) -> dict[str, int]:
    """Read `NAME=VALUE` of each class."""
    result: dict[str, int] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.rpartition("="))
        if not name or name in result or not re.fullmatch(r"-?\d{1,9}", value, re.ASCII) or int(value) == 0:
            expected = "--class NAME=VALUE, an integer other than 0, each name once"
            raise UserError("A class is malformed", f"--class {text}", expected, "e.g. --class liver=1")
        result[name] = int(value)
    return result


def next_command(*words: object, note: str = "") -> None:
    """Show the command to type next, quoted so that it can be pasted."""
    text = shlex.join(["semivox", *map(str, words)])
    typer.echo(f"next: {text}" + (f"   # {note}" if note else ""))


def same_command() -> None:
    """Show this very command as the next one: it resumes."""
    next_command(*sys.argv[1:])
