"""Overlap, surface distances and volumes of one case, class by class; a failure counts as a failure."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semivox.errors import UserError
from semivox.evaluation.surface import Axes, Mask, SurfaceDistances, surface_distances, union_box, voxel_axes
from semivox.losses.components import largest_component

Profile = Literal["semivox", "published"]

OVERLAPS = ("dice", "jaccard")
DISTANCES = ("hd95_mm", "asd_mm", "assd_mm", "hd95_vox", "asd_vox", "assd_vox")
PENALISED = tuple(f"{name}_penalised" for name in DISTANCES)
SCORES = (*OVERLAPS, *DISTANCES[:3], "nsd", *DISTANCES[3:], *PENALISED)
PUBLISHED_SCORES = (*OVERLAPS, "hd95_vox", "asd_vox")
COUNTS = ("tp", "fp", "fn", "tn")
FAILURES = ("missed", "false_alarm", "missing")
LCC = "_lcc"
_VOXEL = (1, 1, 1)


def case_metrics(
    prediction: NDArray[Any] | None,
    reference: NDArray[Any],
    num_classes: int,
    grid: ArrayLike,
    *,
    nsd_tolerance_mm: float = 1.0,
    profile: Profile = "semivox",
    lcc: bool = False,
) -> list[dict[str, Any]]:
    """Score one case: one row a foreground class.

    `asd` is the mean distance from the prediction's surface to the reference's only, as published; `assd`
    averages over both surfaces; `hd95` is the 95th percentile of both directed sets of distances together;
    `nsd` is the share of both surfaces that lies within the tolerance of the other one.

    | status | reference | prediction | overlap, nsd | distances | `*_penalised` |
    |---|---|---|---|---|---|
    | ok | present | present | as measured | as measured | as measured |
    | missed | present | empty | 0 | NaN | image diagonal |
    | false_alarm | empty | present | 0 | NaN | image diagonal |
    | absent | empty | empty | NaN | NaN | NaN |
    | missing | any | no file | 0 | NaN | image diagonal |

    The profile `published` has Dice, Jaccard, 95HD and ASD in voxels only, all 0 when either mask is
    empty (marked in the column `zeroed`): the convention of many published tables, where a total failure
    lowers the mean distance.

    Args:
        prediction, reference: class indices (X, Y, Z) of one shape; None when there is no prediction.
        num_classes: with the background.
        grid: voxel size in mm (3,), or the affine (4, 4): axes need not be perpendicular.
        nsd_tolerance_mm: tolerance of `nsd`.
        profile: conventions, see above.
        lcc: add columns `*_lcc`, the scores of the largest 26-connected component of each predicted class.
    """
    if prediction is not None and prediction.shape != reference.shape:
        what, do = "Prediction and reference have different shapes", "predict on the grid of the reference"
        raise UserError(what, f"prediction {prediction.shape}", f"reference {reference.shape}", do)
    rules = _Rules(reference.shape, voxel_axes(grid), nsd_tolerance_mm, profile)
    return [_class_row(index, prediction, reference, rules, lcc) for index in range(1, num_classes)]


class _Rules(NamedTuple):
    """What scoring needs to know besides the masks."""

    shape: tuple[int, ...]  # of the whole image
    axes_mm: Axes
    tolerance_mm: float
    profile: Profile

    def diagonal(self, unit: str) -> float:
        """Length of the image's longest diagonal in `mm` or `vox`."""
        axes = self.axes_mm if unit == "mm" else np.eye(3)
        ends = np.array(self.shape) * list(product((1,), (-1, 1), (-1, 1)))
        return float(np.linalg.norm(ends @ axes.T, axis=1).max())

    def millilitres(self, mask: Mask) -> float:
        return abs(float(np.linalg.det(self.axes_mm))) / 1000 * np.count_nonzero(mask)


def _class_row(
    index: int, prediction: NDArray[Any] | None, reference: NDArray[Any], rules: _Rules, lcc: bool
) -> dict[str, Any]:
    true = reference == index
    found = np.zeros_like(true) if prediction is None else prediction == index
    box = union_box(found, true) or (slice(0, 0),) * true.ndim
    found, true = found[box], true[box]
    names = {(True, True): "ok", (True, False): "missed", (False, True): "false_alarm"}
    status = "missing" if prediction is None else names.get((bool(true.any()), bool(found.any())), "absent")
    score = _published if rules.profile == "published" else _scores

    row: dict[str, Any] = {"class": index, "status": status, "profile": rules.profile}
    row |= {"zeroed": status != "ok"} if rules.profile == "published" else {}
    row |= (raw := score(found, true, status, rules))
    row["volume_pred_ml"] = math.nan if prediction is None else rules.millilitres(found)
    row["volume_ref_ml"] = rules.millilitres(true)
    if lcc:
        largest = largest_component(found)
        again = raw if largest is found else score(largest, true, status, rules)
        row |= {name + LCC: value for name, value in again.items()}
        row["volume_pred_ml" + LCC] = math.nan if prediction is None else rules.millilitres(largest)
    tp = int(np.count_nonzero(found & true))
    fp, fn = int(np.count_nonzero(found)) - tp, int(np.count_nonzero(true)) - tp
    return row | {"tp": tp, "fp": fp, "fn": fn, "tn": reference.size - tp - fp - fn}


def _scores(found: Mask, true: Mask, status: str, rules: _Rules) -> dict[str, float]:
    if status == "ok":
        values = _overlap(found, true) | _distance_scores(found, true, rules)
        penalised = {name: values[name] for name in DISTANCES}
    else:
        absent = status == "absent"
        values = dict.fromkeys((*OVERLAPS, "nsd"), math.nan if absent else 0.0)
        values |= dict.fromkeys(DISTANCES, math.nan)
        units = {name: name.rpartition("_")[2] for name in DISTANCES}
        penalised = {name: math.nan if absent else rules.diagonal(unit) for name, unit in units.items()}
    values |= {f"{name}_penalised": value for name, value in penalised.items()}
    return {name: values[name] for name in SCORES}


def _published(found: Mask, true: Mask, status: str, rules: _Rules) -> dict[str, float]:
    if status != "ok":
        return dict.fromkeys(PUBLISHED_SCORES, 0.0)
    values = _overlap(found, true) | _averages(surface_distances(found, true, _VOXEL)[0], "vox")
    return {name: values[name] for name in PUBLISHED_SCORES}


def _overlap(found: Mask, true: Mask) -> dict[str, float]:
    both, total = np.count_nonzero(found & true), np.count_nonzero(found) + np.count_nonzero(true)
    return {"dice": 2 * both / total, "jaccard": both / (total - both)}


def _distance_scores(found: Mask, true: Mask, rules: _Rules) -> dict[str, float]:
    size = rules.axes_mm[0, 0]
    if np.array_equal(rules.axes_mm, size * np.eye(3)):
        (mm,) = surface_distances(found, true, rules.axes_mm)
        voxels = SurfaceDistances(*(distances / size for distances in mm))
    else:
        mm, voxels = surface_distances(found, true, rules.axes_mm, _VOXEL)
    # Spacings come from float32 headers: a distance of exactly the tolerance counts as within it.
    within = np.concatenate(mm) <= rules.tolerance_mm * (1 + 1e-6)
    return _averages(mm, "mm") | {"nsd": float(within.mean())} | _averages(voxels, "vox")


def _averages(distances: SurfaceDistances, unit: str) -> dict[str, float]:
    both = np.concatenate(distances)
    return {
        f"hd95_{unit}": float(np.percentile(both, 95)),
        f"asd_{unit}": float(distances.to_reference.mean()),
        f"assd_{unit}": float(both.mean()),
    }
