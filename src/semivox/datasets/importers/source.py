"""What a source of scans holds before it is converted: its cases and label files, and one case in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from semivox.datasets.case import Pool
from semivox.errors import UserError, unknown
from semivox.files import signature
from semivox.io.dicom import read_segments, segments
from semivox.io.dicom_series import Series
from semivox.io.formats import DICOM_ENDINGS, Array, bad_file, list_values, unreadable
from semivox.io.geometry import onto_grid
from semivox.io.reader import guarded
from semivox.io.volume import Volume, check_channels, check_finite, read_image, read_values


@dataclass(frozen=True)
class CaseSource:
    """A case to convert."""

    name: str
    images: tuple[Path | Series, ...]  # one a channel, or one file or DICOM series with all channels
    labels: Mapping[Path, str | None] = field(default_factory=dict)  # class of a mask; None: values count
    pool: Pool = "train"

    def content(self) -> str:
        """Return a digest of the content of all files and folders that it is made from."""
        images = [path for it in self.images for path in (it.files if isinstance(it, Series) else [it])]
        files = dict.fromkeys([*images, *self.labels])
        paths = (path for file in files for path in [file, *sorted(file.rglob("*"))])
        hashes = [signature(path)[-1] for path in paths if not path.is_dir()]
        return blake2b("".join(hashes).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Found:
    """What a source holds, and what `dataset.json` and `import.json` say about it."""

    cases: Sequence[CaseSource]
    description: str
    channels: tuple[str, ...] = ()  # names, in order; empty: `channel_0` and so on
    classes: Mapping[str, int] | None = None  # values on disk of the foreground; None: all that labels hold
    ignore: int | None = None  # value of voxels that are not annotated
    order: tuple[str, ...] = ()  # training cases in the order that splits follow; empty: by name
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    spacing_mm: Sequence[float] = (1, 1, 1)  # of h5 files, which store none
    name: str = ""  # of the data set; empty: that of the output folder
    notes: Sequence[str] = ()  # to tell the user
    remarks: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)  # and about which cases
    facts: Mapping[str, Any] = field(default_factory=dict)  # for `import.json`

    def load(self, case: CaseSource) -> tuple[Volume, Array | None, dict[str, str]]:
        """Return image, label (X, Y, Z) with the values on disk, and facts; a later label file wins."""
        first, classes, label, stored = case.images[0], self.classes or {}, None, None
        if isinstance(first, Path) and first.suffix.lower() == ".h5":
            image, stored = _read_h5(first, self.channels, self.spacing_mm)
        else:
            image = read_image(case.images, self.channels or None)
        for path, name in case.labels.items():
            if _is_segmentation(path):
                part = read_segments(path, classes, image)
            else:
                part = onto_grid(stored or read_values(path), image, path)
                part = part if name is None else (part != 0) * np.int32(classes[name])
            label = part if label is None else np.where(part != 0, part, label)
        return image, label, {}


@guarded
def _read_h5(path: Path, channels: Sequence[str], spacing_mm: Sequence[float]) -> tuple[Volume, Volume]:
    """Read `image` (X, Y, Z), or (C, X, Y, Z), and `label` (X, Y, Z), as published code stores them."""
    try:
        with h5py.File(path) as file:
            image, label = np.asarray(file["image"][()], np.float32), np.asarray(file["label"][()])
            wrong = label[label != np.rint(label)]
    except Exception as error:  # the library raises whatever it meets in a damaged file
        raise unreadable(path, error, "h5", "a whole h5 file with arrays image and label") from error
    array = image if image.ndim == 4 else image[None]
    if array.ndim != 4 or array.shape[1:] != label.shape or array.size == 0:
        found, expected = f"shapes {image.shape} and {label.shape}", "two 3D arrays of the same shape"
        raise bad_file(path, "The arrays of the h5 file do not fit", found, expected)
    check_channels(len(array), channels or None, [path])
    check_finite(array, path)
    if wrong.size:
        raise bad_file(path, "The label holds values that are not integers", list_values(wrong), "integers")
    affine = np.diag([*spacing_mm, 1.0])
    return Volume(array, affine), Volume(label.astype(np.int32), affine)


def class_table(cases: Sequence[CaseSource], declared: Mapping[str, int]) -> Mapping[str, int] | None:
    """Return the value of each class: as declared, else 1, 2, ... for names in the order they appear.

    None: the files hold values without names, and none are declared.
    """
    holders: dict[str | None, Path] = {}  # None: of values
    for path, name in (item for case in cases for item in case.labels.items()):
        if declared and name is not None and name not in declared:
            what, do = "A label pattern has a name that is not declared", f"add --class {name}=VALUE"
            raise UserError(what, name, ", ".join(declared), do, path)
        holders |= dict.fromkeys(segments(path) if _is_segmentation(path) else [name], path)
    names = [name for name in holders if name is not None]
    segmented = [path for case in cases for path in case.labels if _is_segmentation(path)]
    if segmented and (strange := [name for name in declared if name not in names]):
        raise unknown("segment", strange[0], names, segmented[0].parent)
    if names and None in holders:
        what, do = "Some labels have names, others have values", "name every pattern: --labels NAME=PATTERN"
        raise UserError(what, f"{', '.join(names)} by name", "all of one kind", do, holders[None])
    return declared or {name: value for value, name in enumerate(names, start=1)} or None


def _is_segmentation(path: Path) -> bool:  # a DICOM-SEG, whose segments have names
    return path.name.lower().endswith(DICOM_ENDINGS)
