"""Frozen peer: a case scored as in published code, with medpy, class by class on the whole arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medpy.metric import binary
from numpy.typing import NDArray


def published_scores(
    prediction: NDArray[Any], reference: NDArray[Any], num_classes: int
) -> list[dict[str, float]]:
    """Dice, Jaccard, 95HD and ASD in voxels of each foreground class; both masks must not be empty."""
    rows = []
    for index in range(1, num_classes):
        found, true = prediction == index, reference == index
        rows.append(
            {
                "dice": float(binary.dc(found, true)),
                "jaccard": float(binary.jc(found, true)),
                "hd95_vox": float(binary.hd95(found, true)),
                "asd_vox": float(binary.asd(found, true)),
            }
        )
    return rows


def full_scores(
    prediction: NDArray[Any], reference: NDArray[Any], num_classes: int, spacing_mm: Sequence[float]
) -> list[dict[str, float]]:
    """What medpy has of semivox's full set: the distances in mm and in voxels, and ASSD beside ASD."""
    rows = published_scores(prediction, reference, num_classes)
    for index, row in enumerate(rows, start=1):
        found, true = prediction == index, reference == index
        row["assd_vox"] = float(binary.assd(found, true))
        row["hd95_mm"] = float(binary.hd95(found, true, spacing_mm))
        row["asd_mm"] = float(binary.asd(found, true, spacing_mm))
        row["assd_mm"] = float(binary.assd(found, true, spacing_mm))
    return rows
