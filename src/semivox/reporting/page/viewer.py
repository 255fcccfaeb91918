"""What the viewer of the page shows: scans and labels as small NIfTI files in base64."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter, uniform_filter

from semivox.reporting.page.source import CaseVolumes
from semivox.reporting.slices import grey_window
from semivox.reporting.style import class_color

MOST_VOXELS = 1_000_000  # of a case: about 1 MB in the page


def viewer_case(name: str, case: CaseVolumes) -> dict[str, Any]:
    """Return the files of a case for the viewer, coarser if it has more than `MOST_VOXELS`.

    Keys: name, voxels (of the scan), focus (where the viewer opens, in mm), image (uint8, black to white as
    in the pictures), truth, found (class indices) and, where there is a map, doubt (uint8, 255: maximum).
    """
    step = max(1.0, (case.image.size / MOST_VOXELS) ** (1 / 3))
    low, high = grey_window(case.image)
    files = {"image": _bytes((case.image - low) / (high - low)), "truth": case.truth, "found": case.found}
    if case.doubt is not None:
        files["doubt"] = _bytes(case.doubt / max(float(case.doubt.max()), 1e-6))
    return {"name": name, "voxels": case.image.size, "focus": _focus(case)} | {
        key: _nifti(*_coarser(array, case.affine, step, smooth=key in ("image", "doubt")))
        for key, array in files.items()
    }


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


def _coarser(
    array: NDArray[Any], affine: NDArray[Any], step: float, *, smooth: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Resample to voxels `step` times as long, or less along coarse axes; labels keep their values."""
    if step <= 1:
        return array, affine
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    wanted = float(np.prod(lengths) ** (1 / 3)) * step  # isotropic where the voxels were finer
    steps = np.maximum(1.0, wanted / lengths)
    shape = tuple(np.maximum(1, np.floor(np.array(array.shape) / steps)).astype(int))
    source = uniform_filter(array, np.round(steps).astype(int).tolist()) if smooth else array
    shift = (steps - 1) / 2
    made = affine_transform(source, steps, shift, shape, order=int(smooth), mode="nearest")
    moved = affine.copy()
    moved[:3, :3] = affine[:3, :3] * steps
    moved[:3, 3] = affine[:3, 3] + affine[:3, :3] @ shift
    return made, moved


def _nifti(array: NDArray[Any], affine: NDArray[Any]) -> str:
    content = nib.Nifti1Image(array.astype(np.uint8), affine).to_bytes()
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode()
