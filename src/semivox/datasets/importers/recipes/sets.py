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

from collections.abc import Callable

import numpy as np

from semivox.datasets.importers.recipes.crops import (
    checked_values,
    crop_in_plane,
    crop_to_brain,
    margins,
    to_spacing,
    zscored,
)
from semivox.datasets.importers.recipes.orient import orient_label
from semivox.datasets.importers.recipes.published import Recipe
from semivox.datasets.importers.source import CaseSource, Loaded
from semivox.io.geometry import onto_grid
from semivox.io.volume import Volume, read_image

_WHOLE = "Whole scans as downloaded."

_LA_TARGET, _LA_LOW, _LA_HIGH = (112, 112), (10, 10), (19, 19)  # numpy's upper bound 20 is exclusive
_LA_CROP = (
    "Z-scored over the whole scan, then cropped in the plane around the labels of all cases,"
    " unlabeled and test cases included, as published; the random margins are fixed by the name."
)

_PANCREAS_HU, _PANCREAS_TARGET, _PANCREAS_MARGIN = (-120.0, 240.0), (96, 96), 25
_PANCREAS_CROP = (
    " Resampled to 1 mm, cropped in the plane around the labels of all cases (plus 25 voxels),"
    " unlabeled and test cases included, z-scored over the crop, as published."
)

_BRATS_CROP = (
    "Cropped to the brain's box (found without labels), clipped at 99.9% of its voxels,"
    " normalised over the voxels above 0, as published."
)


def _la2018(whole: bool) -> Recipe:
    def load(case: CaseSource) -> Loaded:
        image, label, path = read_image(case.images, 1), None, case.files[-1]
        if case.labels:
            label = onto_grid(checked_values(path, (0, 255)), image, path)
            label = (label == 255).astype(np.uint8)
        if whole:
            return Loaded(image, label)
        margin = margins(case.name, _LA_LOW, _LA_HIGH)
        return crop_in_plane(Loaded(zscored(image), label), _LA_TARGET, margin, path)

    return Recipe(
        name="la2018",
        channel="LGE-MR",
        images="**/{case}/lgemri.nrrd",
        labels="**/{case}/laendo.nrrd",
        load=load,
        h5={"ua-mt": "**/{case}/mri_norm2.h5"},
        h5_spacing_mm=0.625,
        split="ua-mt",
        classes={"left_atrium": 1},
        protocol=_WHOLE if whole else _LA_CROP,
        h5_protocol="Published crops (h5): z-scored over the whole scan, cropped around the labels of all"
        " cases, unlabeled and test cases included; they store no voxel size, 0.625 mm is assumed.",
        preset="la-8",
        settings=" --set plan.normalisation=zscore",
    )


def _pancreas_ct(whole: bool) -> Recipe:
    def load(case: CaseSource) -> Loaded:
        image, label, facts, path = read_image(case.images, 1), None, {}, case.files[-1]
        if case.labels:
            label, facts["orientation"] = orient_label(checked_values(path, (0, 1)), image, path)
        loaded = Loaded(image, label) if whole else to_spacing(Loaded(image, label), 1.0)
        clipped = Volume(np.clip(loaded.image.array, *_PANCREAS_HU), loaded.image.affine)
        if whole:
            return Loaded(clipped, label, facts)
        margin = np.full((2, 2), _PANCREAS_MARGIN)
        cropped = crop_in_plane(Loaded(clipped, loaded.label), _PANCREAS_TARGET, margin, path)
        return Loaded(zscored(cropped.image), cropped.label, facts)

    return Recipe(
        name="pancreas-ct",
        case="PANCREAS_",
        form=r"\d{4}",
        channel="CT",
        images="**/PANCREAS_{case}",
        labels="**/label{case}.nii*",
        load=load,
        h5={"mc-net": "**/image{case}_norm.h5", "mcf-0": "**/PANCREAS_{case}.h5", "coranet": "**/{case}.h5"},
        split="mcf-0",
        classes={"pancreas": 1},
        protocol="Clipped to -120 to 240 HU." + ("" if whole else _PANCREAS_CROP),
        h5_protocol="Published h5 files: cropped around the labels of all cases, unlabeled and test cases"
        " included; they store no voxel size, 1 mm is assumed, nor the intensity window.",
        preset="pancreas-6",
        settings=" --set plan.normalisation=zscore --set plan.crop=foreground",
        notes=("Case numbers differ between published lists; 0025 and 0070 are not in the current release.",),
    )


def _brats2019(whole: bool) -> Recipe:
    def load(case: CaseSource) -> Loaded:
        image, label = read_image(case.images, 1), None
        if case.labels:
            label = onto_grid(checked_values(case.files[-1], (0, 1, 2, 4)), image, case.files[-1])
            label = (label > 0).astype(np.uint8)
        return Loaded(image, label) if whole else crop_to_brain(Loaded(image, label))

    return Recipe(
        name="brats2019",
        case="BraTS19_",
        channel="FLAIR",
        images="**/BraTS19_{case}_flair.nii*",
        labels="**/BraTS19_{case}_seg.nii*",
        load=load,
        h5={"ssl4mis": "**/BraTS19_{case}.h5"},
        split="ssl4mis",
        classes={"whole_tumor": 1},
        protocol=_WHOLE if whole else _BRATS_CROP,
        h5_protocol="Published h5 files (FLAIR, whole tumor, cropped to the brain and normalised);"
        " 1 mm is assumed.",
        preset="brats-25",
        settings=" --set plan.normalisation=zscore_nonzero --set plan.crop=foreground",
    )


# By name; the argument: whether scans are taken whole
RECIPES: dict[str, Callable[[bool], Recipe]] = {
    "la2018": _la2018,
    "pancreas-ct": _pancreas_ct,
    "brats2019": _brats2019,
}
