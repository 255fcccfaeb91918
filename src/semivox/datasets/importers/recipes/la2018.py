"""Left atrium: the 100 labeled scans of the 2018 Atrial Segmentation Challenge (late gadolinium MR).

Official download: `CASE/lgemri.nrrd` and `CASE/laendo.nrrd` (atrium 255). Published crops:
`CASE/mri_norm2.h5`. Source of the crop: the preparation published with UA-MT (Yu et al., MICCAI 2019), whose
margins along Z are computed but not applied.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semivox.datasets.importers.recipes.published import (
    Recipe,
    RecipeOptions,
    checked_values,
    crop_in_plane,
    margins,
    zscored,
)
from semivox.datasets.importers.source import Loaded
from semivox.io.geometry import onto_grid
from semivox.io.volume import read_image

_TARGET = (112, 112)
_LOW, _HIGH = (10, 10), (19, 19)  # numpy's upper bound 20 is exclusive
_CROP = (
    "Z-scored over the whole scan, then cropped in the plane around the labels of all cases,"
    " unlabeled and test cases included, as published; the random margins are fixed by the name."
)


def recipe(options: RecipeOptions) -> Recipe:
    """Return where the scans are and what becomes of them."""

    def load(files: tuple[Path, ...], label_path: Path | None, name: str) -> Loaded:
        image, label = read_image(files, 1), None
        if label_path is not None:
            label = onto_grid(checked_values(label_path, (0, 255)), image, label_path)
            label = (label == 255).astype(np.uint8)
        if options.crop == "none":
            return Loaded(image, label)
        margin = margins(name, _LOW, _HIGH)
        return crop_in_plane(Loaded(zscored(image), label), _TARGET, margin, label_path or files[0])

    return Recipe(
        name="la2018",
        images={"LGE-MR": "**/{case}/lgemri.nrrd"},
        labels="**/{case}/laendo.nrrd",
        load=load,
        h5={"ua-mt": "**/{case}/mri_norm2.h5"},
        h5_spacing_mm=0.625,
        split="ua-mt",
        classes={"left_atrium": 1},
        protocol="Whole scans as downloaded." if options.crop == "none" else _CROP,
        h5_protocol="Published crops (h5): z-scored over the whole scan, cropped around the labels of all"
        " cases, unlabeled and test cases included; they store no voxel size, 0.625 mm is assumed.",
        preset="la-8",
        settings=" --set plan.normalisation=zscore",
    )
