"""h5 files with the keys `image` and `label`, as published semi-supervised code uses them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from semivox.datasets.importers.source import CaseSource, Found, ImportOptions, LabelFile, Loaded, read_lists
from semivox.errors import UserError, shortened
from semivox.io.formats import list_values, shortened_text
from semivox.io.reader import guarded
from semivox.io.volume import Volume

LA_NAME = "mri_norm2.h5"


def find_h5(source: Path, options: ImportOptions) -> Found:
    """Find `CASE/mri_norm2.h5` and `CASE.h5`; their voxel size is said to be `options.spacing_mm`."""
    files = h5_files(source)
    if not files:
        found = shortened(sorted(path.name for path in source.iterdir()), 5) or "nothing"
        expected = f"CASE.h5 or CASE/{LA_NAME}"
        raise UserError("The folder holds no h5 files", found, expected, "check the path", source)
    pools, order = read_lists(source, options, set(files))
    spacing = " x ".join(f"{value:g}" for value in options.spacing_mm)
    return Found(
        cases=tuple(h5_case(name, path)._replace(pool=pools[name]) for name, path in files.items()),
        load=lambda case: load_h5(case.labels[0].path, options.spacing_mm),
        channels=options.channels or ("MR",),
        classes=options.classes or None,
        description=f"Imported from h5 files, which store no voxel size: {spacing} mm is assumed",
        order=order,
    )


def h5_files(source: Path) -> dict[str, Path]:
    """Find h5 files by case name, sorted: CASE.h5 and CASE/mri_norm2.h5."""
    single = {path.stem: path for path in source.glob("[!.]*.h5")}
    folders = {path.parent.name: path for path in source.glob(f"[!.]*/{LA_NAME}")}
    if both := sorted(single.keys() & folders.keys()):
        what = "Two h5 files have the same case name"
        raise UserError(what, shortened(both, 5), None, "remove one of them", source)
    return dict(sorted((single | folders).items()))


def h5_case(name: str, path: Path) -> CaseSource:
    """Return a file, which holds the label beside the image, as a case."""
    return CaseSource(name, "train", (path,), (LabelFile(path),))


@guarded
def load_h5(path: Path, spacing_mm: Sequence[float], *, binary: bool = False) -> Loaded:
    """Read `image` (X, Y, Z), or (C, X, Y, Z), and `label` (X, Y, Z); `binary`: values above 0 become 1."""
    try:
        with h5py.File(path) as file:
            if not {"image", "label"} <= set(file):
                found, do = "keys " + (", ".join(file) or "none"), "rename them, or convert to NIfTI"
                raise UserError("The h5 file lacks a key", found, "keys image, label", do, path)
            image, label = np.asarray(file["image"][()], np.float32), np.asarray(file["label"][()])
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        expected, do = "a whole h5 file with arrays image and label", "copy or download it again"
        raise UserError("The file cannot be read as h5", shortened_text(error), expected, do, path) from error
    problem = None
    if image.ndim not in (3, 4) or image.shape[-3:] != label.shape or image.size == 0:
        problem = f"shapes {image.shape} and {label.shape}", "two 3D arrays of the same shape"
    elif not np.isfinite(image).all():
        problem = f"{(~np.isfinite(image)).sum()} NaN or infinite values in the image", "finite numbers"
    elif label.dtype.kind not in "iub" and (wrong := label != np.rint(label)).any():
        problem = "label values " + list_values(label[wrong]), "integers"
    if problem is not None:
        do = "correct the file, or convert it to NIfTI"
        raise UserError("The arrays of the h5 file cannot be used", *problem, do, path)
    values = (label > 0).astype(np.uint8) if binary else label.astype(np.int32)
    affine = np.diag([*spacing_mm, 1.0])
    return Loaded(Volume(image if image.ndim == 4 else image[None], affine), values)
