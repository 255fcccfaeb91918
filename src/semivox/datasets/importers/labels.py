"""The label of a case from one or several files: maps of values, masks with a name each, DICOM-SEG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semivox.errors import UserError
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

    Raises:
        UserError: names and values side by side; a name that is not among the declared ones.
    """
    from semivox.io.dicom_seg import segments

    names: dict[str, Path] = {}
    plain = None
    for file in files:
        if file.is_segmentation:
            for name in segments(file.path):
                names.setdefault(name, file.path)
        elif file.name is not None:
            if declared and file.name not in declared:
                what, do = "A label pattern has a name that is not declared", f"add --class {file.name}=VALUE"
                raise UserError(what, file.name, ", ".join(declared), do, file.path)
            names.setdefault(file.name, file.path)
        else:
            plain = plain or file.path
    if names and plain:
        what, found = "Some labels have names, others have values", f"{', '.join(names)} by name"
        do = "give every label pattern a name: --labels NAME=PATTERN"
        raise UserError(what, found, "all of one kind", do, plain)
    if declared:
        return dict(declared)
    return {name: value for value, name in enumerate(names, start=1)} if names else None


def assemble(files: Sequence[LabelFile], like: Volume, classes: Mapping[str, int] | None) -> Array:
    """Read the files of one case onto the grid of its image; where several mark a voxel, the last one counts.

    Returns:
        (X, Y, Z) integers, the values on disk.
    """
    label: Array | None = None
    for file in files:
        if file.is_segmentation:
            from semivox.io.dicom_seg import read_segments

            part = read_segments(file.path, classes or {}, like)
        else:
            part = onto_grid(read_values(file.path), like, file.path)
            if file.name is not None:
                part = np.where(part != 0, np.int32((classes or {})[file.name]), np.int32(0))
        label = part if label is None else np.where(part != 0, part, label)
    return label if label is not None else np.zeros(like.array.shape[-3:], np.int32)
