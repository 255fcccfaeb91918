"""The published data sets: where their scans and labels are, and what published code makes of them.

Left atrium: the 100 labeled scans of the 2018 Atrial Segmentation Challenge (late gadolinium MR). The crop is
that of the preparation published with UA-MT (Yu et al., MICCAI 2019), whose margins along Z are computed but
not applied.

Pancreas-CT (NIH, The Cancer Imaging Archive): abdominal CT, whose labels are stored in another orientation
than the scans. Published h5 files are those of MC-Net, MCF and CoraNet; their three splits number and divide
the cases differently, so scores on them are not comparable.

BraTS 2019: glioma in FLAIR scans; the published h5 files and their preparation are those of SSL4MIS.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semivox.datasets.importers.crops import (
    crop_in_plane,
    crop_to_brain,
    margins,
    orient_label,
    to_spacing,
    zscored,
)
from semivox.datasets.importers.published import Recipe
from semivox.datasets.importers.source import Loaded
from semivox.io.volume import Volume


def _la_crop(loaded: Loaded, name: str, path: Path) -> Loaded:
    margin = margins(name, (10, 10), (19, 19))  # published as numpy's upper bound 20, which is exclusive
    return crop_in_plane(Loaded(zscored(loaded.image), loaded.label), (112, 112), margin, path)


def _pancreas_window(loaded: Loaded, name: str, path: Path) -> Loaded:
    hu = np.clip(loaded.image.array, -120.0, 240.0)
    return loaded._replace(image=Volume(hu, loaded.image.affine))


def _pancreas_crop(loaded: Loaded, name: str, path: Path) -> Loaded:
    even = _pancreas_window(to_spacing(loaded, 1.0), name, path)
    cropped = crop_in_plane(even, (96, 96), np.full((2, 2), 25), path)
    return cropped._replace(image=zscored(cropped.image))


_LA = Recipe(
    name="la2018",
    channel="LGE-MR",
    organ="left_atrium",
    images="**/{case}/lgemri.nrrd",
    labels="**/{case}/laendo.nrrd",
    values=(0, 255),
    crop=_la_crop,
    crop_protocol="Z-scored over the whole scan, then cropped in the plane around the labels of all cases,"
    " unlabeled and test cases included, as published; the random margins are fixed by the name.",
    preset="la-8",
    settings=" --set plan.normalisation=zscore",
    split="ua-mt",
    h5={"ua-mt": "**/{case}/mri_norm2.h5"},
    h5_protocol="Published crops (h5): z-scored over the whole scan, cropped around the labels of all"
    " cases, unlabeled and test cases included; they store no voxel size, 0.625 mm is assumed.",
    h5_spacing_mm=0.625,
)
_PANCREAS = Recipe(
    name="pancreas-ct",
    case="PANCREAS_",
    form=r"\d{4}",
    channel="CT",
    organ="pancreas",
    images="**/PANCREAS_{case}",
    labels="**/label{case}.nii*",
    values=(0, 1),
    lay=orient_label,
    whole=_pancreas_window,
    crop=_pancreas_crop,
    protocol="Clipped to -120 to 240 HU.",
    crop_protocol="Clipped to -120 to 240 HU. Resampled to 1 mm, cropped in the plane around the labels of"
    " all cases (plus 25 voxels), unlabeled and test cases included, z-scored over the crop, as published.",
    preset="pancreas-6",
    settings=" --set plan.normalisation=zscore --set plan.crop=foreground",
    split="mcf-0",
    h5={"mc-net": "**/image{case}_norm.h5", "mcf-0": "**/PANCREAS_{case}.h5", "coranet": "**/{case}.h5"},
    h5_protocol="Published h5 files: cropped around the labels of all cases, unlabeled and test cases"
    " included; they store no voxel size, 1 mm is assumed, nor the intensity window.",
    notes=("Case numbers differ between published lists; 0025 and 0070 are not in the current release.",),
)
_BRATS = Recipe(
    name="brats2019",
    case="BraTS19_",
    channel="FLAIR",
    organ="whole_tumor",
    images="**/BraTS19_{case}_flair.nii*",
    labels="**/BraTS19_{case}_seg.nii*",
    values=(0, 1, 2, 4),
    crop=lambda loaded, name, path: crop_to_brain(loaded),
    crop_protocol="Cropped to the brain's box (found without labels), clipped at 99.9% of its voxels,"
    " normalised over the voxels above 0, as published.",
    preset="brats-25",
    settings=" --set plan.normalisation=zscore_nonzero --set plan.crop=foreground",
    split="ssl4mis",
    h5={"ssl4mis": "**/BraTS19_{case}.h5"},
    h5_protocol="Published h5 files (FLAIR, whole tumor, cropped to the brain and normalised);"
    " 1 mm is assumed.",
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (_LA, _PANCREAS, _BRATS)}
