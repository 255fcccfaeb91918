"""A case of any source in memory: its image, and its label files laid onto it and merged into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, LabelFile, Loaded, read_lists
from semivox.errors import UserError, unknown
from semivox.io.dicom import read_segments, segments
from semivox.io.formats import DICOM_ENDINGS, Array, bad_file, list_values, unreadable
from semivox.io.geometry import onto_grid
from semivox.io.reader import guarded
from semivox.io.volume import Volume, check_channels, check_finite, read_image, read_values


def found_of(
    cases: Sequence[CaseSource],
    options: ImportOptions,
    description: str,
    *,
    lists: Path | None = None,
    channels: Sequence[str] = (),
    order: tuple[str, ...] = (),
) -> Found:
    """Return what the cases hold.

    Args:
        cases: sorted; those of the pool "train" go where the lists say.
        options: channels and classes given here count, else `channels`, and what the label files hold.
        description: for `dataset.json`.
        lists: folder in or beside which lists of cases may lie; None: there are none.
        channels: names as the source tells them.
        order: of the training cases, unless a list tells it.
    """
    if lists is not None:
        pools, listed = read_lists(lists, options, {case.name for case in cases})
        cases = [case._replace(pool=pools[case.name]) if case.pool == "train" else case for case in cases]
        order = listed or order
    names = options.channels or tuple(channels)
    classes = _class_table([file for case in cases for file in case.labels], options.classes)
    load = partial(load_case, channels=names, classes=classes or {}, spacing_mm=options.spacing_mm)
    return Found(
        cases=tuple(cases), load=load, channels=names, classes=classes, description=description, order=order
    )


def load_case(
    case: CaseSource, *, channels: Sequence[str], classes: Mapping[str, int], spacing_mm: Sequence[float]
) -> Loaded:
    """Read a case; where label files overlap, a later one wins. Only h5 files need `spacing_mm`."""
    first, label = case.images[0], None
    if isinstance(first, Path) and first.suffix.lower() == ".h5":
        image, values = _read_h5(first, channels, spacing_mm)
        parts = (_of_class(values, file, classes) for file in case.labels)
    else:
        image = read_image(case.images, tuple(channels) or None)
        parts = (_read_label(file, image, classes) for file in case.labels)
    for part in parts:
        label = part if label is None else np.where(part != 0, part, label)
    return Loaded(image, label)


@guarded
def _read_h5(path: Path, channels: Sequence[str], spacing_mm: Sequence[float]) -> tuple[Volume, Array]:
    """Read `image` (X, Y, Z), or (C, X, Y, Z), and `label` (X, Y, Z), as published code stores them."""
    try:
        with h5py.File(path) as file:
            image, label = np.asarray(file["image"][()], np.float32), np.asarray(file["label"][()])
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise unreadable(path, error, "h5", "a whole h5 file with arrays image and label") from error
    array = image if image.ndim == 4 else image[None]
    if array.ndim != 4 or array.shape[1:] != label.shape or array.size == 0:
        found, expected = f"shapes {image.shape} and {label.shape}", "two 3D arrays of the same shape"
        raise bad_file(path, "The arrays of the h5 file do not fit", found, expected)
    check_channels(len(array), channels or None, [path])
    check_finite(array, path)
    if (wrong := label != np.rint(label)).any():
        raise bad_file(path, "The label holds values that are not integers", list_values(label[wrong]), None)
    return Volume(array, np.diag([*spacing_mm, 1.0])), label.astype(np.int32)


def _read_label(file: LabelFile, like: Volume, classes: Mapping[str, int]) -> Array:
    """Read a label file onto the grid of its image, (X, Y, Z) integers, the values on disk."""
    if _is_segmentation(file):
        return read_segments(file.path, classes, like)
    return _of_class(onto_grid(read_values(file.path), like, file.path), file, classes)


def _of_class(values: Array, file: LabelFile, classes: Mapping[str, int]) -> Array:
    return values if file.name is None else np.where(values != 0, np.int32(classes[file.name]), np.int32(0))


def _class_table(files: Sequence[LabelFile], declared: Mapping[str, int]) -> dict[str, int] | None:
    """Return the value of each class: as declared, else 1, 2, ... for names in the order they appear.

    None: the files hold values without names, and none are declared.
    """
    if bad := [file for file in files if file.name and declared and file.name not in declared]:
        what, do = "A label pattern has a name that is not declared", f"add --class {bad[0].name}=VALUE"
        raise UserError(what, bad[0].name, ", ".join(declared), do, bad[0].path)
    names = dict.fromkeys(
        name
        for file in files
        for name in (segments(file.path) if _is_segmentation(file) else (file.name,))
        if name is not None
    )
    segmentations = [file.path for file in files if _is_segmentation(file)]
    if segmentations and (strange := [name for name in declared if name not in names]):
        raise unknown("segment", strange[0], names, segmentations[0].parent)
    unnamed = [file.path for file in files if file.name is None and not _is_segmentation(file)]
    if names and unnamed:
        what, do = "Some labels have names, others have values", "name every pattern: --labels NAME=PATTERN"
        raise UserError(what, f"{', '.join(names)} by name", "all of one kind", do, unnamed[0])
    return dict(declared) or {name: value for value, name in enumerate(names, start=1)} or None


def _is_segmentation(file: LabelFile) -> bool:  # a DICOM-SEG, whose segments have names
    return file.path.name.lower().endswith(DICOM_ENDINGS)
