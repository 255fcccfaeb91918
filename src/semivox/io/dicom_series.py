"""What DICOM files a folder holds: headers only, grouped by series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.io.dicom_lengths import check_lengths
from semivox.io.formats import DICOM_ENDINGS, Array, unreadable

SEGMENTATION = "SEG"
_NO_IMAGES = ("RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
_TAGS = {
    "modality": "0008|0060",
    "description": "0008|103e",
    "uid": "0020|000e",
    "number": "0020|0011",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
    "thickness": "0018|0050",
    "frames": "0028|0008",
}


@dataclass(frozen=True, eq=False)
class Slice:
    """The header of one DICOM file.

    Attributes:
        size: (columns, rows).
        position: (3,) mm LPS, center of the first pixel; None where the tag is missing, as the next two.
        orientation: (6,), direction of the rows, then of the columns.
        spacing: (2,) mm, between rows, then between columns.
        thickness: mm, 0 where it is not given.
        frames: more than 1 in a multi-frame file.
    """

    path: Path
    modality: str
    description: str
    uid: str
    number: str
    size: tuple[int, ...]
    position: Any
    orientation: Any
    spacing: Any
    thickness: float
    frames: int

    @staticmethod
    def read(path: Path) -> Slice:
        """Read the header; a damaged file is a `UserError`."""
        try:
            check_lengths(path)
        except OSError as error:
            raise unreadable(path, error, "DICOM", "a whole DICOM file") from error
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise unreadable(path, error, "DICOM", "a whole DICOM file") from error
        tags = {
            name: reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else ""
            for name, key in _TAGS.items()
        }
        thickness = _vector(tags.pop("thickness"), 1)
        return Slice(
            path=path,
            size=tuple(reader.GetSize()[:2]),
            position=_vector(tags.pop("position"), 3),
            orientation=_vector(tags.pop("orientation"), 6),
            spacing=_vector(tags.pop("spacing"), 2),
            thickness=float(thickness[0]) if thickness is not None else 0.0,
            frames=int(tags.pop("frames") or 1),
            **tags,
        )


@dataclass(frozen=True, eq=False)
class Series:
    """The files of one series, in the order of their names."""

    slices: tuple[Slice, ...]

    @property
    def is_segmentation(self) -> bool:
        """Whether it is a DICOM-SEG object."""
        return self.slices[0].modality == SEGMENTATION

    def __str__(self) -> str:
        first = self.slices[0]
        count = first.frames if len(self.slices) == 1 else len(self.slices)
        columns, rows = first.size
        name = f"{first.number or '-'} {first.description or '(no description)'}"
        return f"{name} [{first.modality}, {columns}x{rows}, {count} slices, uid {first.uid}]"


def find_series(folder: Path, *, segmentations: bool = False) -> list[Series]:
    """Find all image series below a folder, by series number and description.

    Files that are no DICOM are passed over; so are plans, structure sets and reports.

    Args:
        folder: searched with all its subfolders.
        segmentations: give the DICOM-SEG objects instead.

    Raises:
        UserError: a DICOM file that cannot be read.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[Slice]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.name == "DICOMDIR" or not _is_dicom(path):
            continue
        try:
            item = Slice.read(path)
        except UserError as error:
            other = _without_gdcm(path, error)
            if other is None:
                continue
            item = other
        if (item.modality == SEGMENTATION) == segmentations and item.modality not in _NO_IMAGES:
            key = item.uid or str(path.parent)
            groups[key, () if item.frames == 1 else (len(groups),)].append(item)
    series = [Series(tuple(slices)) for slices in groups.values()]
    return sorted(series, key=lambda item: (item.slices[0].number.zfill(9), item.slices[0].description))


def choose_series(series: Sequence[Series], wanted: str | None, folder: Path) -> Series:
    """Give the only series, or the one whose number, UID or description fits `wanted` (`*` and `?` allowed).

    Raises:
        UserError: none fits, or several do.
    """
    fitting = [item for item in series if wanted is None or _fits(item.slices[0], wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if not series:
        raise UserError(
            "There is no DICOM image series here",
            path=folder,
            found="no readable DICOM image",
            expected="the slices of one series",
            do="check the path",
        )
    raise UserError(
        f"No series fits {wanted!r}" if wanted and not fitting else "There are several DICOM series",
        path=folder,
        found=list_series(fitting or series),
        expected="one series a case",
        do=f'choose one by number, description or uid, e.g. --series "{_name(series[0])}"',
    )


def list_series(series: Sequence[Series]) -> str:
    """Give one line a series."""
    return "".join(f"\n    {item}" for item in series)


def _fits(item: Slice, wanted: str) -> bool:
    texts = (item.number, item.uid, item.description)
    return any(text and fnmatch(text.lower(), wanted.strip().lower()) for text in texts)


def _name(series: Series) -> str:
    first = series.slices[0]
    return first.number or first.description or first.uid


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    if path.suffix.lower() in DICOM_ENDINGS:
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _without_gdcm(path: Path, error: UserError) -> Slice | None:
    """Give what GDCM cannot read: a segmentation of the newer kind; None for a plan or report.

    Raises:
        UserError: `error`, for everything else.
    """
    try:
        import pydicom

        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        modality = str(header.get("Modality", ""))
    except Exception:  # not installed; or its parser raises whatever it meets
        raise error from None
    if modality in _NO_IMAGES:
        return None
    if modality != SEGMENTATION:
        raise error
    return Slice(
        path=path,
        modality=modality,
        description=str(header.get("SeriesDescription", "")),
        uid=str(header.get("SeriesInstanceUID", "")),
        number=str(header.get("SeriesNumber", "")),
        size=(int(header.get("Columns", 0)), int(header.get("Rows", 0))),
        position=None,
        orientation=None,
        spacing=None,
        thickness=0.0,
        frames=int(header.get("NumberOfFrames", 1)),
    )


def _vector(text: str, length: int) -> Array | None:
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return values if len(values) == length and np.isfinite(values).all() else None
