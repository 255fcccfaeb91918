"""What the viewer of the page shows: scans and labels as small NIfTI files in base64."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.colors import to_rgb
from nibabel.affines import rescale_affine, voxel_sizes
from nibabel.processing import resample_from_to
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from semivox.reporting.page.source import CaseVolumes
from semivox.reporting.style import class_color

MOST_VOXELS = 1_000_000  # of a case: about 1 MB in the page


def viewer_case(name: str, case: CaseVolumes) -> dict[str, Any]:
    """Return the files of a case for the viewer, coarser if it has more than `MOST_VOXELS`.

    Keys: name, coarser, focus (where the viewer opens, in mm), image (uint8, black and white are
    percentiles of the scan), truth, found (class indices) and, where there is a map, doubt (uint8, 255:
    maximum).
    """
    low, high = case.scan.window
    files = {"image": _bytes((case.scan.image - low) / (high - low))}
    if case.doubt is not None:
        files["doubt"] = _bytes(case.doubt / max(float(case.doubt.max()), 1e-6))
    facts = {"name": name, "coarser": case.truth.size > MOST_VOXELS, "focus": _focus(case)}
    facts |= {key: _nifti(array, case.affine, smooth=True) for key, array in files.items()}
    labels = {"truth": case.truth, "found": case.found}
    return facts | {key: _nifti(label, case.affine, smooth=False) for key, label in labels.items()}


def colormaps(class_names: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Return colormaps of class indices as NiiVue wants them, in colors and in white; background is clear."""
    parts = [to_rgb(class_color(index)) for index in range(1, len(class_names))]
    levels = np.round(255 * np.array([(0.0, 0.0, 0.0), *parts])).astype(int).T.tolist()
    white = [0, *[255] * len(parts)]
    labels: dict[str, list[Any]] = {"A": white, "I": list(range(len(class_names))), "labels": [*class_names]}
    return {
        "colors": {**labels, **dict(zip("RGB", levels, strict=True))},
        "white": {**labels, **dict.fromkeys("RGB", white)},
    }


def _focus(case: CaseVolumes) -> list[float]:
    """Return the place in mm where most voxels are wrong, else one in the foreground."""
    wrong = case.truth != case.found
    mask = wrong if wrong.any() else case.truth > 0
    place = np.unravel_index(int(gaussian_filter(mask.astype(np.float32), 2).argmax()), mask.shape)
    return [float(value) for value in (case.affine @ [*place, 1])[:3]]


def _bytes(share: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.round(255 * np.clip(share, 0, 1)), np.uint8)


def _nifti(array: NDArray[np.uint8], affine: NDArray[Any], *, smooth: bool) -> str:
    """Return a file, with at most `MOST_VOXELS`; labels, which are not smooth, keep their values."""
    made = nib.Nifti1Image(array, affine)
    if array.size > MOST_VOXELS:
        lengths = voxel_sizes(affine)
        # Isotropic where the voxels were finer.
        sizes = np.maximum(lengths, (lengths.prod() * array.size / MOST_VOXELS) ** (1 / 3))
        shape = np.maximum(1, (np.array(array.shape) * lengths / sizes).astype(int))
        if smooth:
            mean = uniform_filter(array, np.round(sizes / lengths).astype(int).tolist())
            made = nib.Nifti1Image(mean, affine)
        grid = shape, rescale_affine(affine, array.shape, sizes, shape)
        made = resample_from_to(made, grid, order=int(smooth), mode="nearest")
    return base64.b64encode(gzip.compress(made.to_bytes(), 6, mtime=0)).decode()
