"""Pancreas-CT (NIH, The Cancer Imaging Archive): abdominal CT with the pancreas outlined.

Official download: `PANCREAS_NNNN/**/*.dcm` and `labelNNNN.nii.gz`, stored in another orientation than the
scans. Published forms: `imageNNNN_norm.h5` (MC-Net), `PANCREAS_NNNN.h5` (MCF) and `NNNN.h5` (CoraNet). The
three published splits number and divide the cases differently: scores on them are not comparable.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semivox.datasets.importers.dicom import load_volume
from semivox.datasets.importers.h5 import load_h5
from semivox.datasets.importers.recipes.orient import orient_label
from semivox.datasets.importers.recipes.published import (
    Case,
    RecipeOptions,
    check_values,
    choose_split,
    crop_in_plane,
    make_found,
    unique,
    zscored,
)
from semivox.datasets.importers.source import Found, Loaded
from semivox.errors import UserError
from semivox.io.dicom_series import choose_series, find_series
from semivox.io.formats import Array
from semivox.io.volume import Volume, read_values

PAPER_HU, COMMON_HU = (-120.0, 240.0), (-125.0, 275.0)
_TARGET, _MARGIN = (96, 96), 25
_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_H5_PROTOCOL = (
    "Published h5 files: cropped around the labels of all cases, unlabeled and test cases included;"
    " they store no voxel size, 1 mm is assumed, nor the intensity window."
)
_CROP_PROTOCOL = (
    " Resampled to 1 mm, cropped in the plane around the labels of all cases (plus 25 voxels),"
    " unlabeled and test cases included, z-scored over the crop, as published."
)
_FORMS = {  # published file name: split that goes with it
    re.compile(r"image(\d{4})_norm\.h5"): "mc-net",
    re.compile(r"PANCREAS_(\d{4})\.h5"): "mcf-0",
    re.compile(r"(\d{4})\.h5"): "coranet",
}
_SCAN = re.compile(r"PANCREAS_(\d{4})", re.IGNORECASE)
_LABEL = re.compile(r"label(\d{4})\.nii(\.gz)?", re.IGNORECASE)


def find(raw: Path, options: RecipeOptions) -> Found:
    """Find the cases of a download; where it holds both forms, h5 serves `crop="published"` only."""
    scans = unique(_named(raw, _SCAN, folders=True), raw)
    labels = unique(_named(raw, _LABEL), raw)
    stored, form = _stored(raw)
    window = options.hu or PAPER_HU
    if not window[0] < window[1]:
        raise UserError("The intensity window is empty", found=window, expected="LOW below HIGH, in HU")
    from_h5 = bool(stored) and (options.crop == "published" or not scans)
    if from_h5:
        split = choose_split("pancreas-ct", options.split or form)
        cases = {
            name: Case((path,), partial(load_h5, path, np.eye(4), binary=True))
            for name, path in stored.items()
        }
        protocol = _H5_PROTOCOL
    else:
        split = choose_split("pancreas-ct", options.split or "mcf-0")
        cases = {
            name: Case(
                (folder, *([labels[name]] if name in labels else [])),
                partial(_load, folder, labels.get(name), window, options.crop),
                name in labels,
            )
            for name, folder in scans.items()
        }
        protocol = f"Clipped to {window[0]:g} to {window[1]:g} HU."
        protocol += _CROP_PROTOCOL if options.crop == "published" else ""
    whole = options.crop == "none" and not from_h5
    unknown = [f"{labels[name].name} (label without a scan)" for name in sorted(labels.keys() - scans.keys())]
    return make_found(
        raw,
        split,
        cases,
        channels=("CT",),
        classes={"pancreas": 1},
        protocol=protocol,
        prepare=" --preset pancreas-6"
        + (" --set plan.normalisation=zscore --set plan.crop=foreground" if whole else ""),
        unknown=unknown if scans else (),
        notes=("Case numbers differ between published lists; 0025 and 0070 are not in the current release.",),
    )


def _named(raw: Path, pattern: re.Pattern[str], *, folders: bool = False) -> list[tuple[str, Path]]:
    """List paths whose name fits, with the case's name; a folder inside one that fits does not count."""
    result: list[tuple[str, Path]] = []
    for path in sorted(raw.rglob("*")):
        match = pattern.fullmatch(path.name)
        nested = any(pattern.fullmatch(part) for part in path.relative_to(raw).parts[:-1])
        if match and path.is_dir() == folders and not nested:
            result.append((f"PANCREAS_{match[1]}", path))
    return result


def _stored(raw: Path) -> tuple[dict[str, Path], str]:
    """Find the h5 files and the split that goes with their names."""
    found = {split: _named(raw, pattern) for pattern, split in _FORMS.items()}
    present = [split for split, files in found.items() if files]
    if len(present) > 1:
        names = [files[0][1].name for files in found.values() if files]
        what = "The folder mixes published forms of Pancreas-CT, whose case numbers differ"
        do = "name the folder of one of them"
        raise UserError(what, ", ".join(names), "files of one form", do, raw)
    return (unique(found[present[0]], raw), present[0]) if present else ({}, "")


def _load(folder: Path, label_path: Path | None, window: tuple[float, float], crop: str) -> Loaded:
    image = load_volume(choose_series(find_series(folder), None, folder))
    label, facts = None, {}
    if label_path is not None:
        raw = read_values(label_path)
        check_values(raw.array, (0, 1), label_path)
        label, facts["orientation"] = orient_label(raw, image, label_path)
    clipped = Volume(np.clip(image.array, *window), image.affine)
    if crop == "none":
        return Loaded(clipped, label, facts)
    if label is None:
        what, do = "The published crop needs a label, and this case has none", "add it, or leave out --crop"
        raise UserError(what, "no labelNNNN.nii.gz", "the label file of every case", do, folder)
    loaded = to_spacing(Loaded(Volume(image.array, image.affine), label), 1.0)
    clipped = Volume(np.clip(loaded.image.array, *window), loaded.image.affine)
    margin = np.full((2, 2), _MARGIN)
    cropped = crop_in_plane(Loaded(clipped, loaded.label), _TARGET, margin, label_path or folder)
    return Loaded(zscored(cropped.image), cropped.label, facts)


def to_spacing(loaded: Loaded, spacing_mm: float) -> Loaded:
    """Resample to a voxel size equal along all axes, images by cubic B-splines; the first voxel stays.

    Args:
        loaded: (C, X, Y, Z) and (X, Y, Z) with orthogonal axes.
        spacing_mm: the new voxel size.
    """
    affine = loaded.image.affine
    shape = [
        max(1, round(side * old / spacing_mm))
        for side, old in zip(loaded.image.array.shape[1:], loaded.image.spacing_mm, strict=True)
    ]
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    array = np.stack(
        [_resampled(item, affine, shape, spacing_mm, sitk.sitkBSpline) for item in loaded.image.array]
    )
    label = None
    if loaded.label is not None:
        label = _resampled(loaded.label, affine, shape, spacing_mm, sitk.sitkNearestNeighbor)
    new = np.eye(4)
    new[:3, :3], new[:3, 3] = directions * spacing_mm, affine[:3, 3]
    return Loaded(Volume(array, new), label)


def _resampled(array: Array, affine: Array, shape: list[int], spacing_mm: float, how: int) -> Array:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    axes = _TO_LPS @ affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    image.SetSpacing(lengths.tolist())
    image.SetDirection((axes / lengths).ravel().tolist())
    image.SetOrigin((_TO_LPS @ affine[:3, 3]).tolist())
    grid = sitk.ResampleImageFilter()
    grid.SetReferenceImage(image)
    grid.SetSize(shape)
    grid.SetOutputSpacing([spacing_mm] * 3)
    grid.SetInterpolator(how)
    grid.SetOutputPixelType(image.GetPixelID())
    low = float(array.min())
    grid.SetDefaultPixelValue(low)
    return np.asarray(sitk.GetArrayFromImage(grid.Execute(image)).T)
