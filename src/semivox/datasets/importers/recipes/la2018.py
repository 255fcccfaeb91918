"""Left atrium: the 100 labeled scans of the 2018 Atrial Segmentation Challenge (late gadolinium MR).

Official download: `CASE/lgemri.nrrd` and `CASE/laendo.nrrd` (atrium 255). Published crops:
`CASE/mri_norm2.h5`. Source of the crop: the preparation published with UA-MT (Yu et al., MICCAI 2019), whose
margins along Z are computed but not applied.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semivox.datasets.importers.h5 import LA_NAME, load_h5
from semivox.datasets.importers.recipes.published import (
    Case,
    RecipeOptions,
    check_values,
    choose_split,
    crop_in_plane,
    make_found,
    margins,
    unique,
    zscored,
)
from semivox.datasets.importers.source import Found, Loaded
from semivox.io.geometry import onto_grid
from semivox.io.volume import read_image, read_values

_IMAGE, _LABEL = "lgemri.nrrd", "laendo.nrrd"
_TARGET = (112, 112)
_LOW, _HIGH = (10, 10), (19, 19)  # numpy's upper bound 20 is exclusive
_SPACING_MM = 0.625


def find(raw: Path, options: RecipeOptions) -> Found:
    """Find the cases of a download; where it holds both forms, the h5 files serve `crop="published"` only."""
    split = choose_split("la2018", options.split or "ua-mt")
    scans = unique([(path.parent.name, path) for path in sorted(raw.rglob(_IMAGE))], raw)
    crops = unique([(path.parent.name, path) for path in sorted(raw.rglob(LA_NAME))], raw)
    from_h5 = bool(crops) and (options.crop == "published" or not scans)
    if from_h5:
        affine = np.diag([_SPACING_MM] * 3 + [1.0])
        cases = {name: Case((path,), partial(load_h5, path, affine)) for name, path in crops.items()}
        protocol = (
            "Published crops (h5): z-scored over the whole scan, cropped around the labels of all cases,"
            f" unlabeled and test cases included; they store no voxel size, {_SPACING_MM} mm is assumed."
        )
    else:
        cases = {
            name: Case(
                (path, _label_of(path)), partial(_load, path, name, options), _label_of(path).is_file()
            )
            for name, path in scans.items()
        }
        protocol = (
            "Z-scored over the whole scan, then cropped in the plane around the labels of all cases,"
            " unlabeled and test cases included, as published; the random margins are fixed by the name."
            if options.crop == "published"
            else "Whole scans as downloaded."
        )
    whole = options.crop == "none" and not from_h5
    lacking = {path.parent for path in raw.rglob(_LABEL)} - {path.parent for path in scans.values()}
    return make_found(
        raw,
        split,
        cases,
        channels=("LGE-MR",),
        classes={"left_atrium": 1},
        protocol=protocol,
        prepare=" --preset la-8" + (" --set plan.normalisation=zscore" if whole else ""),
        unknown=sorted(f"{path.name} (label without {_IMAGE})" for path in lacking),
    )


def _label_of(image: Path) -> Path:
    return image.with_name(_LABEL)


def _load(path: Path, name: str, options: RecipeOptions) -> Loaded:
    image, label_path = read_image([path], 1), _label_of(path)
    label = None
    if label_path.is_file():
        raw = read_values(label_path)
        check_values(raw.array, (0, 255), label_path)
        label = (onto_grid(raw, image, label_path) == 255).astype(np.uint8)
    if options.crop == "none":
        return Loaded(image, label)
    if label is None:
        label = np.zeros(image.array.shape[1:], np.uint8)
    return crop_in_plane(Loaded(zscored(image), label), _TARGET, margins(name, _LOW, _HIGH), label_path)
