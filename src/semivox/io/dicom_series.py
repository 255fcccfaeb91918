"""What DICOM files a folder holds: headers only, grouped by series; needs the extra `dicom`."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from semivox.errors import UserError
from semivox.io.formats import DICOM_ENDINGS, Array, bad_file, unreadable
from semivox.io.reader import guarded

_NO_IMAGES = ("RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
_TAGS = (
    *("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "Rows", "Columns"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "NumberOfFrames"),
)


def dicom_package(name: str, path: Path) -> Any:
    """Import pydicom or highdicom, or say how to get it; `path` is the file that needs it."""
    try:
        return import_module(name)
    except ImportError as error:
        what, do = "DICOM needs extra packages", 'type: pip install "semivox[dicom]"'
        raise bad_file(path, what, f"{name} is not installed", "pydicom and highdicom", do) from error


def read_dataset(path: Path, **options: Any) -> Any:
    """Read a DICOM file with pydicom; a damaged file is a `UserError`."""
    pydicom = dicom_package("pydicom", path)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, force=True, **options)
    except Exception as error:  # the parser raises whatever it meets in a damaged file
        raise unreadable(path, error, "DICOM", "a whole DICOM file") from error


@dataclass(frozen=True, eq=False)
class Slice:
    """The header of one DICOM file; arrays are None where the tag is missing."""

    path: Path
    modality: str
    description: str
    uid: str
    number: str
    size: tuple[int, int]  # columns, rows
    position: Any  # (3,) mm LPS, center of the first pixel
    orientation: Any  # (6,), direction of the rows, then of the columns
    spacing: Any  # (2,) mm, between rows, then between columns
    thickness: float  # mm, 0 where it is not given
    frames: int  # more than 1 in a multi-frame file

    @staticmethod
    def read(path: Path) -> Slice:
        """Read the header; a damaged file is a `UserError`."""
        header = read_dataset(path, stop_before_pixels=True, specific_tags=list(_TAGS))

        def text(tag: str) -> str:
            return str(header.get(tag) or "").strip()

        def vector(tag: str, length: int) -> Array | None:
            with suppress(TypeError, ValueError):  # absent, or no numbers
                values = np.array([float(part) for part in header.get(tag)])
                return values if len(values) == length and np.isfinite(values).all() else None
            return None

        try:
            size = int(header.get("Columns") or 0), int(header.get("Rows") or 0)
            if text("Modality") not in _NO_IMAGES and 0 in size:
                raise ValueError("it does not say how many rows and columns it has")
            return Slice(
                path=path,
                modality=text("Modality"),
                description=text("SeriesDescription"),
                uid=text("SeriesInstanceUID"),
                number=text("SeriesNumber"),
                size=size,
                position=vector("ImagePositionPatient", 3),
                orientation=vector("ImageOrientationPatient", 6),
                spacing=vector("PixelSpacing", 2),
                thickness=float(header.get("SliceThickness") or 0),
                frames=int(header.get("NumberOfFrames") or 1),
            )
        except Exception as error:
            raise unreadable(path, error, "DICOM", "a whole DICOM file") from error


@dataclass(frozen=True, eq=False)
class Series:
    """The files of one series, in the order of their names."""

    slices: tuple[Slice, ...]

    @property
    def path(self) -> Path:
        return self.slices[0].path

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(item.path for item in self.slices)

    def __str__(self) -> str:
        first = self.slices[0]
        count = first.frames if len(self.slices) == 1 else len(self.slices)
        columns, rows = first.size
        name = f"{first.number or '-'} {first.description or '(no description)'}"
        return f"{name} [{first.modality}, {columns}x{rows}, {count} slices, uid {first.uid}]"


@guarded
def find_series(folder: Path, *, segmentations: bool = False) -> list[Series]:
    """Find all image series below a folder, or its DICOM-SEG objects, by series number and description.

    Files that are no DICOM are passed over; so are plans, structure sets and reports.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[Slice]] = defaultdict(list)
    for path in filter(_is_dicom, sorted(folder.rglob("*"))):
        item = Slice.read(path)
        if (item.modality == "SEG") == segmentations and item.modality not in _NO_IMAGES:
            key = item.uid or str(path.parent)
            groups[key, () if item.frames == 1 else (len(groups),)].append(item)
    series = [Series(tuple(slices)) for slices in groups.values()]
    return sorted(series, key=lambda item: (item.slices[0].number.zfill(9), item.slices[0].description))


def choose_series(series: Sequence[Series], wanted: str | None, folder: Path) -> Series:
    """Return the only series, or the one whose number, UID or description `wanted` fits (with `*`, `?`)."""
    fitting = [item for item in series if wanted is None or _fits(item.slices[0], wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if not series:
        raise UserError("There is no DICOM image series here", None, "one series", "check the path", folder)
    what = f"No series fits {wanted!r}" if wanted and not fitting else "There are several DICOM series"
    first = series[0].slices[0]
    name = first.number or first.description or first.uid
    do = f'choose one by number, description or uid, e.g. --series "{name}"'
    raise UserError(what, list_series(fitting or series), "one series a case", do, folder)


def _fits(item: Slice, wanted: str) -> bool:
    texts = (item.number, item.uid, item.description)
    return any(text and fnmatch(text.lower(), wanted.strip().lower()) for text in texts)


def list_series(series: Sequence[Series]) -> str:
    """Return one line for each series."""
    return "".join(f"\n    {item}" for item in series)


def case_folders(source: Path) -> list[Path]:
    """Return the folders in `source` that hold DICOM, each a case; else, or if files lie in it, `source`."""
    inner = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    lie_here = any(map(_is_dicom, source.iterdir()))
    return [source] if lie_here else [folder for folder in inner if holds_dicom(folder)] or [source]


def holds_dicom(folder: Path) -> bool:
    """Whether any file below a folder is DICOM."""
    return any(map(_is_dicom, folder.rglob("*")))


def _is_dicom(path: Path) -> bool:
    if path.name.startswith(".") or path.name == "DICOMDIR" or not path.is_file():
        return False
    if path.suffix.lower() in DICOM_ENDINGS:
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
