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
    Case,
    RecipeOptions,
    check_values,
    choose_split,
    crop_to,
    make_found,
    unique,
    zscored,
)
from semivox.datasets.importers.source import Found, Loaded
from semivox.errors import UserError
from semivox.io.formats import Array
from semivox.io.geometry import onto_grid
from semivox.io.volume import Volume, read_image, read_values

_PARTS = {"necrotic_core": 1, "edema": 2, "enhancing": 4}
_REGIONS = {"whole_tumor": (1, 2, 4), "tumor_core": (1, 4)}  # and the enhancing tumor, which is a class
_MODALITIES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
_CLIP = 0.999  # share of the voxels of the brain's box
_BINS = 256
_H5_PROTOCOL = (
    "Published h5 files (FLAIR, whole tumor, cropped to the brain and normalised); 1 mm is assumed."
)
_CROP_PROTOCOL = (
    f"Cropped to the brain's box (found without labels), clipped at {_CLIP:.1%} of its voxels,"
    " normalised over the voxels above 0, as published."
)
_WHOLE = " --set plan.normalisation=zscore_nonzero --set plan.crop=foreground"


def find(raw: Path, options: RecipeOptions) -> Found:
    """Find the cases of a download."""
    split = choose_split("brats2019", options.split or "ssl4mis")
    names = tuple(_MODALITIES) if options.modalities == "all" else ("flair",)
    scans = unique(
        [
            (path.name.rpartition("_flair.nii")[0], path)
            for path in sorted(raw.rglob("*_flair.nii*"))
            if path.name.endswith(("_flair.nii", "_flair.nii.gz")) and path.name[0] != "." and path.is_file()
        ],
        raw,
    )
    stored = unique([(path.stem, path) for path in sorted(raw.rglob("BraTS19_*.h5"))], raw)
    from_h5 = bool(stored) and (options.crop == "published" or not scans)
    if from_h5:
        _check_h5(raw, options)
        cases = {
            name: Case((path,), partial(load_h5, path, np.eye(4), binary=True))
            for name, path in stored.items()
        }
        protocol = _H5_PROTOCOL
    else:
        cases = {
            name: Case(files, partial(_load, path, names, options), files[-1].is_file())
            for name, path in scans.items()
            for files in [tuple(_beside(path, sequence) for sequence in (*names, "seg"))]
        }
        protocol = _CROP_PROTOCOL if options.crop == "published" else "Whole scans as downloaded."
    lacking = sorted(path.name for path in raw.rglob("BraTS19_*") if path.is_dir() and path.name not in cases)
    return make_found(
        raw,
        split,
        cases,
        channels=tuple(_MODALITIES[name] for name in names),
        classes=_PARTS if options.target == "regions" else {"whole_tumor": 1},
        regions=_REGIONS if options.target == "regions" else None,
        protocol=protocol,
        prepare=" --preset brats-25" + ("" if from_h5 or options.crop == "published" else _WHOLE),
        unknown=[f"{name} (without {name}_flair.nii.gz)" for name in lacking],
    )


def clip_level(values: Array) -> float:
    """Return the center of the first of 256 bins up to which 99.9 % of the values lie, as published."""
    counts, edges = np.histogram(values, bins=_BINS)
    reached = np.cumsum(counts) / values.size
    index = int(np.argmax(reached >= _CLIP))
    return float((edges[index] + edges[index + 1]) / 2)


def _load(flair: Path, names: tuple[str, ...], options: RecipeOptions) -> Loaded:
    paths = [_beside(flair, name) for name in names]
    image, label_path = read_image(paths, tuple(_MODALITIES[name] for name in names)), _beside(flair, "seg")
    label = None
    if label_path.is_file():
        raw = read_values(label_path)
        check_values(raw.array, (0, 1, 2, 4), label_path)
        label = onto_grid(raw, image, label_path)
        label = (label > 0).astype(np.uint8) if options.target == "whole" else label
    if options.crop == "none":
        return Loaded(image, label)
    return _published(Loaded(image, label))


def _published(loaded: Loaded) -> Loaded:
    """Crop to the box of voxels other than 0, clip, normalise; the box ends one voxel early, as published."""
    brain = (loaded.image.array != 0).any(axis=0)
    box = []
    for axis in range(3):
        inside = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(inside[0]), int(inside[-1])) if inside.size > 1 else slice(0, brain.shape[axis]))
    cropped = crop_to(loaded, tuple(box))
    array = np.stack([np.minimum(channel, clip_level(channel)) for channel in cropped.image.array])
    return Loaded(zscored(Volume(array, cropped.image.affine), array > 0), cropped.label)


def _beside(flair: Path, name: str) -> Path:
    """Return the file of another sequence of the case; either may be compressed."""
    stem = flair.name.rpartition("_flair.nii")[0]
    candidates = [flair.with_name(f"{stem}_{name}{ending}") for ending in (".nii.gz", ".nii")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _check_h5(raw: Path, options: RecipeOptions) -> None:
    if options.modalities == "all" or options.target == "regions":
        what = "The published h5 files hold FLAIR and the whole tumor only"
        expected = "the official download, for four sequences or the parts of the tumor"
        do = "name that folder, or leave out --modalities and --target"
        raise UserError(what, "BraTS19_*.h5", expected, do, raw)
