"""Whole-volume validation during training, on the plan's grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from semivox.config import PredictConfig
from semivox.inference.cover import covered, room
from semivox.io.volume import IGNORE
from semivox.methods.base import Method
from semivox.patches.patch_sizes import PatchSizes
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store


def make_validator(
    store: Store, cases: Sequence[str], plan: Plan, sizes: PatchSizes, config: PredictConfig
) -> Callable[[Method, torch.device, int], dict[str, float]]:
    """Build a function that segments the validation cases by sliding window and scores them.

    Windows have the size of the patches in the last of the iterations done, its third argument.

    It returns `dice` (mean over cases of the mean over the foreground classes present in reference or
    prediction) and `dice_CLASS`. These figures are on the plan's grid; `evaluate` uses the scanner's grid.
    """
    classes = plan.class_names[1:]

    def validate(method: Method, device: torch.device, done: int) -> dict[str, float]:
        scores = np.full((len(cases), len(classes)), np.nan)
        for row, name in enumerate(cases):
            image = torch.from_numpy(np.asarray(store.image(name)[:], dtype=np.float32)).to(device)
            limit = room(method, device)
            probs = covered(image, method.predict, patch=sizes.at(done - 1), config=config, room=limit)
            scores[row] = _dice(probs.argmax(0).cpu().numpy(), np.asarray(store.label(name)[:]), len(classes))
        per_case = [np.nanmean(row) for row in scores if not np.isnan(row).all()]
        result = {"dice": float(np.mean(per_case)) if per_case else float("nan")}
        for index, name in enumerate(classes):
            column = scores[:, index]
            result[f"dice_{name}"] = float(np.nanmean(column)) if not np.isnan(column).all() else float("nan")
        return result

    return validate


def _dice(prediction: NDArray[np.int64], reference: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """Dice of each foreground class where the reference is known; NaN where a class is absent from both."""
    prediction = np.where(reference == IGNORE, 0, prediction)
    scores = np.full(classes, np.nan)
    for index in range(1, classes + 1):
        found, true = prediction == index, reference == index
        size = found.sum() + true.sum()
        if size:
            scores[index - 1] = 2 * (found & true).sum() / size
    return scores
