"""BraTS 2019: glioma, four MR sequences.

Official download: `HGG|LGG/BraTS19_X/BraTS19_X_flair.nii.gz` with `_t1`, `_t1ce`, `_t2` and `_seg` (values 0,
1, 2, 4). Published form: `BraTS19_X.h5` of SSL4MIS, whose preparation is repeated here on request.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semivox.datasets.importers.h5 import load_h5
from semivox.datasets.importers.recipes.published import (
    Recipe,
    RecipeOptions,
    checked_values,
    crop_to,
    zscored,
)
from semivox.datasets.importers.source import Loaded
from semivox.io.formats import Array
from semivox.io.geometry import foreground_box, onto_grid
from semivox.io.volume import Volume, read_image

_PARTS = {"necrotic_core": 1, "edema": 2, "enhancing": 4}
_REGIONS = {"whole_tumor": (1, 2, 4), "tumor_core": (1, 4)}  # and the enhancing tumor, which is a class
_SEQUENCES = {"FLAIR": "flair", "T1": "t1", "T1ce": "t1ce", "T2": "t2"}
_CLIP = 0.999  # share of the voxels of the brain's box
_BINS = 256
_CROP = (
    f"Cropped to the brain's box (found without labels), clipped at {_CLIP:.1%} of its voxels,"
    " normalised over the voxels above 0, as published."
)


def recipe(options: RecipeOptions) -> Recipe:
    """Return where the scans are and what becomes of them."""
    channels = tuple(_SEQUENCES) if options.modalities == "all" else ("FLAIR",)
    whole, parts = options.target == "whole", options.target == "regions"

    def load(files: tuple[Path, ...], label_path: Path | None, _: str) -> Loaded:
        image, label = read_image(files, channels), None
        if label_path is not None:
            label = onto_grid(checked_values(label_path, (0, 1, 2, 4)), image, label_path)
            label = (label > 0).astype(np.uint8) if whole else label
        loaded = Loaded(image, label)
        return loaded if options.crop == "none" else _published(loaded)

    return Recipe(
        name="brats2019",
        case="BraTS19_",
        images={name: f"**/BraTS19_{{case}}_{_SEQUENCES[name]}.nii*" for name in channels},
        labels="**/BraTS19_{case}_seg.nii*",
        load=load,
        h5={"ssl4mis": "**/BraTS19_{case}.h5"},
        h5_load=partial(load_h5, binary=True),
        h5_lacks="FLAIR and the whole tumor only" if parts or len(channels) > 1 else "",
        split="ssl4mis",
        classes={"whole_tumor": 1} if whole else _PARTS,
        regions=_REGIONS if parts else {},
        protocol="Whole scans as downloaded." if options.crop == "none" else _CROP,
        h5_protocol="Published h5 files (FLAIR, whole tumor, cropped to the brain and normalised);"
        " 1 mm is assumed.",
        preset="brats-25",
        settings=" --set plan.normalisation=zscore_nonzero --set plan.crop=foreground",
    )


def clip_level(values: Array) -> float:
    """Return the center of the first of 256 bins up to which 99.9 % of the values lie, as published."""
    counts, edges = np.histogram(values, bins=_BINS)
    index = int(np.argmax(np.cumsum(counts) / values.size >= _CLIP))
    return float((edges[index] + edges[index + 1]) / 2)


def _published(loaded: Loaded) -> Loaded:
    """Crop to the box of voxels other than 0, clip, normalise; the box ends one voxel early, as published."""
    start, stop, _ = foreground_box((loaded.image.array != 0).astype(np.uint8))
    cropped = crop_to(loaded, tuple(slice(a, max(a + 1, b - 1)) for a, b in zip(start, stop, strict=True)))
    array = np.stack([np.minimum(channel, clip_level(channel)) for channel in cropped.image.array])
    return Loaded(zscored(Volume(array, cropped.image.affine), array > 0), cropped.label)
