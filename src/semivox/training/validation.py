"""Whole-volume validation during training, on the working grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from semivox.config import PredictConfig
from semivox.inference.cover import covered, room
from semivox.io.volume import IGNORE
from semivox.methods.base import Method
from semivox.patches.loaders import PatchSizes
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store


def make_validator(
    store: Store, cases: Sequence[str], plan: Plan, sizes: PatchSizes, config: PredictConfig
) -> Callable[[Method, torch.device, int], dict[str, float]]:
    """Build a function that segments the validation cases by sliding window and scores them.

    Its third argument is the number of iterations done: windows have the size of the patches in the last one.

    It returns `dice` (mean over cases of the mean over the foreground classes present in reference or
    prediction) and `dice_CLASS`. These figures are on the working grid; `evaluate` uses the scanner's grid.
    """
    classes = plan.class_names[1:]

    def validate(method: Method, device: torch.device, done: int) -> dict[str, float]:
        scores = np.full((len(cases), len(classes)), np.nan)
        for row, name in enumerate(cases):
            image = torch.from_numpy(np.asarray(store.image(name)[:], dtype=np.float32)).to(device)
            limit = room(method, device)
            probs = covered(image, method.predict, patch=sizes.at(done - 1), config=config, room=limit)
            scores[row] = _dice(probs.argmax(0).cpu().numpy(), np.asarray(store.label(name)[:]), len(classes))
        by_class = {f"dice_{name}": _mean(column) for name, column in zip(classes, scores.T, strict=True)}
        return {"dice": _mean(np.array([_mean(row) for row in scores])), **by_class}

    return validate


def _mean(values: NDArray[np.float64]) -> float:
    """Average the numbers that are not NaN; NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _dice(prediction: NDArray[np.int64], reference: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """Compute the Dice of each foreground class where the reference is known; NaN where both have none."""
    prediction = np.where(reference == IGNORE, 0, prediction)
    scores = np.full(classes, np.nan)
    for index in range(1, classes + 1):
        found, true = prediction == index, reference == index
        size = found.sum() + true.sum()
        if size:
            scores[index - 1] = 2 * (found & true).sum() / size
    return scores
