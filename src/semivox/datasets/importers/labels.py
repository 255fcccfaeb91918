"""The label of a case from one or several files: maps of values, masks with a name each, DICOM-SEG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semivox.errors import UserError
from semivox.io.dicom_seg import read_segments, segments
from semivox.io.formats import DICOM_ENDINGS, Array
from semivox.io.geometry import onto_grid
from semivox.io.volume import Volume, read_values


@dataclass(frozen=True)
class LabelFile:
    """A label file; a `name` says that its voxels other than 0 are that class, else its values count."""

    path: Path
    name: str | None = None

    @property
    def is_segmentation(self) -> bool:
        """Whether it is a DICOM-SEG object, whose segments have names of their own."""
        return self.path.name.lower().endswith((*DICOM_ENDINGS, ".seg"))


def class_table(files: Iterable[LabelFile], declared: Mapping[str, int]) -> dict[str, int] | None:
    """Return the value of each class: as declared, else 1, 2, ... for names in the order they appear.

    None: the files hold values without names, and none are declared.
    """
    files = list(files)
    if bad := [file for file in files if file.name and declared and file.name not in declared]:
        what, do = "A label pattern has a name that is not declared", f"add --class {bad[0].name}=VALUE"
        raise UserError(what, bad[0].name, ", ".join(declared), do, bad[0].path)
    named = [[*segments(file.path)] if file.is_segmentation else [file.name] for file in files]
    names = list(dict.fromkeys(name for group in named for name in group if name is not None))
    plain = [file.path for file, group in zip(files, named, strict=True) if None in group]
    if names and plain:
        what, do = "Some labels have names, others have values", "name every pattern: --labels NAME=PATTERN"
        raise UserError(what, f"{', '.join(names)} by name", "all of one kind", do, plain[0])
    return dict(declared) or {name: value for value, name in enumerate(names, start=1)} or None


def assemble(files: Sequence[LabelFile], like: Volume, classes: Mapping[str, int]) -> Array:
    """Read the files of one case onto the grid of its image; where several mark a voxel, the last one counts.

    Returns:
        (X, Y, Z) integers, the values on disk.
    """
    parts = [_read(file, like, classes) for file in files]
    label = parts[0]
    for part in parts[1:]:
        label = np.where(part != 0, part, label)
    return label


def _read(file: LabelFile, like: Volume, classes: Mapping[str, int]) -> Array:
    if file.is_segmentation:
        return read_segments(file.path, classes, like)
    part = onto_grid(read_values(file.path), like, file.path)
    return part if file.name is None else np.where(part != 0, np.int32(classes[file.name]), np.int32(0))
