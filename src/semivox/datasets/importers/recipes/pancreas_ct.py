"""Pancreas-CT (NIH, The Cancer Imaging Archive): abdominal CT with the pancreas outlined.

Official download: `PANCREAS_NNNN/**/*.dcm` and `labelNNNN.nii.gz`, stored in another orientation than the
scans. Published forms: `imageNNNN_norm.h5` (MC-Net), `PANCREAS_NNNN.h5` (MCF) and `NNNN.h5` (CoraNet). The
three published splits number and divide the cases differently: scores on them are not comparable.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from semivox.datasets.importers.h5 import load_h5
from semivox.datasets.importers.recipes.orient import orient_label
from semivox.datasets.importers.recipes.published import (
    Recipe,
    RecipeOptions,
    checked_values,
    crop_in_plane,
    zscored,
)
from semivox.datasets.importers.source import Loaded
from semivox.errors import UserError
from semivox.io.volume import Volume, read_image

_PAPER_HU = (-120.0, 240.0)
_TARGET, _MARGIN = (96, 96), 25
_CROP = (
    " Resampled to 1 mm, cropped in the plane around the labels of all cases (plus 25 voxels),"
    " unlabeled and test cases included, z-scored over the crop, as published."
)


def recipe(options: RecipeOptions) -> Recipe:
    """Return where the scans are and what becomes of them."""
    low, high = options.hu or _PAPER_HU
    if not low < high:
        raise UserError("The intensity window is empty", (low, high), "LOW below HIGH, in HU")

    def load(files: tuple[Path, ...], label_path: Path | None, _: str) -> Loaded:
        image, label, facts = read_image(files, 1), None, {}
        if label_path is not None:
            stored = checked_values(label_path, (0, 1))
            label, facts["orientation"] = orient_label(stored, image, label_path)
        loaded = Loaded(image, label) if options.crop == "none" else to_spacing(Loaded(image, label), 1.0)
        clipped = Volume(np.clip(loaded.image.array, low, high), loaded.image.affine)
        if options.crop == "none":
            return Loaded(clipped, label, facts)
        margin = np.full((2, 2), _MARGIN)
        cropped = crop_in_plane(Loaded(clipped, loaded.label), _TARGET, margin, label_path or files[0])
        return Loaded(zscored(cropped.image), cropped.label, facts)

    return Recipe(
        name="pancreas-ct",
        case="PANCREAS_",
        form=r"\d{4}",
        images={"CT": "**/PANCREAS_{case}"},
        labels="**/label{case}.nii*",
        load=load,
        h5={"mc-net": "**/image{case}_norm.h5", "mcf-0": "**/PANCREAS_{case}.h5", "coranet": "**/{case}.h5"},
        h5_load=partial(load_h5, binary=True),
        split="mcf-0",
        classes={"pancreas": 1},
        protocol=f"Clipped to {low:g} to {high:g} HU." + ("" if options.crop == "none" else _CROP),
        h5_protocol="Published h5 files: cropped around the labels of all cases, unlabeled and test cases"
        " included; they store no voxel size, 1 mm is assumed, nor the intensity window.",
        preset="pancreas-6",
        settings=" --set plan.normalisation=zscore --set plan.crop=foreground",
        notes=("Case numbers differ between published lists; 0025 and 0070 are not in the current release.",),
    )


def to_spacing(loaded: Loaded, spacing_mm: float) -> Loaded:
    """Resample to a voxel size equal along all axes, images by cubic B-splines; the first voxel stays."""
    image = loaded.image
    step = spacing_mm / np.array(image.spacing_mm)  # from one new voxel to the next, in old ones
    shape = np.maximum(1, np.rint(image.array.shape[1:] / step)).astype(int)
    affine = image.affine @ np.diag([*step, 1.0])
    array = np.stack(
        [affine_transform(item, step, output_shape=shape, order=3, mode="nearest") for item in image.array]
    )
    label = loaded.label
    if label is not None:
        label = affine_transform(label, step, output_shape=shape, order=0, mode="nearest")
    return Loaded(Volume(array, affine), label)
