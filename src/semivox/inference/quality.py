"""How good a segmentation is likely to be: figures of a prediction, and the Dice that follows from them.

The figures need no reference. What they are worth is learned from validation cases: a ridge regression in
which a better figure never lowers the Dice, and an interval from its leave-one-out errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import label as label_pieces
from scipy.optimize import nnls
from torch import Tensor

from semivox.inference.postprocess import Rule
from semivox.inference.uncertainty import entropy

LEARNED = ("soft_dice", "volume", "connected")  # on hippocampus, the others made the rest of it worse
FEWEST = 5  # validation cases, below which no Dice is predicted
LEVEL = 0.9  # of the interval
_FLAGGED = 0.2  # share of the validation cases that would be flagged
_RIDGES = (0.03, 0.1, 0.3, 1.0)  # of the number of cases
_FAR = 6.0  # standard deviations of a volume from which on more make no difference
# Figure: what it means where it is low. All grow with quality.
FIGURES = {
    "soft_dice": "outlines are uncertain",
    "sharpness": "many voxels are uncertain",
    "agreement": "networks or windows disagree",
    "volume": "unusual volume",
    "connected": "several pieces",
}


Predictor = Callable[[NDArray[np.float64]], float]


class Volumes(BaseModel):
    """The volumes of one foreground class in the labeled cases, as logarithms of mL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    sd: float
    always: bool  # whether every labeled case has the class


class Calibration(BaseModel):
    """What validation and labeled cases tell about a model's predictions; the `calibration` of `model.yaml`.

    Attributes:
        temperature: softens (above 1) or sharpens the probabilities, see `tempered`.
        postprocess: clean-up of a class, by its name, where it helped.
        volumes: of each foreground class in the labeled cases.
        figures: of each validation case, see `semivox.inference.quality`.
        dice: of each validation case, mean over the classes, after the clean-up.
        measured: what the above was worth on the validation cases, for the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, gt=0)
    postprocess: dict[str, Rule] = {}
    volumes: tuple[Volumes, ...] = ()
    figures: dict[str, tuple[float, ...]] = {}
    dice: tuple[float, ...] = ()
    measured: dict[str, float] = {}


class Quality(NamedTuple):
    """What is predicted of one segmentation.

    Attributes:
        dice: mean over the foreground classes, 0 to 1; NaN where the model has too few validation cases.
        low, high: interval of `LEVEL`.
        flag: whether somebody should look at it first.
        reasons: in words; none for a scan that is not flagged.
        figures: see `FIGURES`.
    """

    dice: float
    low: float
    high: float
    flag: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]


def class_volumes(millilitres: NDArray[np.float64]) -> list[Volumes]:
    """Summarise the volumes (cases, foreground classes) of labeled cases; 0 where a class is absent."""
    found = []
    for column in millilitres.T:
        logs = np.log(column[column > 0])
        spread = float(logs.std(ddof=1)) if len(logs) > 1 else 0.0
        mean = float(logs.mean()) if len(logs) else 0.0
        found.append(Volumes(mean=mean, sd=max(spread, 0.1), always=bool(len(logs) == len(column))))
    return found


def measure(
    probs: Tensor, member_entropy: Tensor, voxel_ml: float, volumes: Sequence[Volumes]
) -> dict[str, float]:
    """Compute the figures of a prediction, see `FIGURES`; each grows with quality.

    `soft_dice` is the Dice of the probabilities with the segmentation made of them, of the worst class
    found; `sharpness` and `agreement` are minus the sum of the entropy, and of the mutual information, over
    the number of foreground voxels; `volume` is minus the largest distance, in standard deviations of the
    logarithm, to the volumes of the labeled cases; `connected` is the mean share of a class in its largest
    piece.

    Args:
        probs: (K, X, Y, Z), before any calibration.
        member_entropy: (X, Y, Z), mean over members and windows, see `semivox.inference.uncertainty`.
        voxel_ml: volume of a voxel.
        volumes: of the foreground classes; none: `volume` is 0.
    """
    probs, member_entropy = probs.detach(), member_entropy.detach()
    winner = probs.argmax(0)
    total, count = entropy(probs), max(int((winner > 0).sum()), 1)
    soft, connected = [], []
    for index in range(1, len(probs)):
        mask = winner == index
        if (size := int(mask.sum())) == 0:
            continue
        soft.append(float(2 * probs[index][mask].sum() / (size + probs[index].sum())))
        pieces, found = label_pieces(mask.cpu().numpy(), np.ones((3, 3, 3)))
        connected.append(1.0 if found < 2 else float(np.bincount(pieces.ravel())[1:].max() / size))
    millilitres = voxel_ml * torch.bincount(winner.flatten(), minlength=len(probs))[1:].double().cpu().numpy()
    return {
        "soft_dice": min(soft, default=0.0),
        "sharpness": -float(total.sum()) / count,
        "agreement": -float((total - member_entropy).clamp(min=0).sum()) / count,
        "volume": -max((_distance(*pair) for pair in zip(millilitres, volumes, strict=False)), default=0.0),
        "connected": _mean(connected),
    }


def _distance(millilitres: float, usual: Volumes) -> float:
    if millilitres <= 0:
        return _FAR if usual.always else 0.0
    return float(min(abs(math.log(millilitres) - usual.mean) / usual.sd, _FAR))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


class Judge:
    """Predicts the Dice of a segmentation from its figures.

    Ridge regression on the standardised figures `LEARNED` with weights >= 0, its strength chosen by the
    leave-one-out error. The interval is that of conformal prediction: the ceil((n + 1) LEVEL)-th smallest
    leave-one-out error to both sides (Lei et al., Distribution-Free Predictive Inference for Regression, JASA
    2018), the largest where n is too small. It holds for scans like the validation cases, not for others.

    Args:
        figures: of each validation case.
        dice: of each validation case, of the segmentation as it is delivered.
    """

    def __init__(self, figures: Mapping[str, Sequence[float]], dice: Sequence[float]) -> None:
        self._names = [name for name in FIGURES if name in figures]
        self._true = np.array(dice, np.float64)
        self.cases = len(self._true)
        self.known = self.cases >= FEWEST
        if not self.known:
            return
        values = np.array([figures[name] for name in self._names], np.float64).T
        self._lowest, self._span = values.min(0), np.ptp(values, axis=0)
        self._suspect = np.quantile(values, _FLAGGED, axis=0)
        self._used = [index for index, name in enumerate(self._names) if name in LEARNED]
        learned = values[:, self._used]
        tried = [(self._left_out(learned, ridge), ridge) for ridge in _RIDGES]
        self.left_out, self._ridge = min(tried, key=lambda pair: float(((pair[0] - self._true) ** 2).sum()))
        errors = np.sort(np.abs(self.left_out - self._true))
        self._error = float(errors[min(math.ceil((self.cases + 1) * LEVEL), self.cases) - 1])
        self._limit = float(np.quantile(self.left_out, _FLAGGED))
        self._model = _fit(learned, self._true, self._ridge)

    def _left_out(self, values: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
        """Predict each case from all others."""
        found = np.empty(self.cases)
        for case in range(self.cases):
            others = np.arange(self.cases) != case
            found[case] = _fit(values[others], self._true[others], ridge)(values[case])
        return found

    def judge(self, figures: Mapping[str, float], absent: Sequence[str] = ()) -> Quality:
        """Predict the Dice of a segmentation, and say why somebody should look at it.

        Args:
            figures: from `measure`.
            absent: classes that every labeled case has and this segmentation has not.
        """
        reasons = [f"no {name} found" for name in absent]
        if not self.known:
            nan = float("nan")
            return Quality(nan, nan, nan, bool(reasons), tuple(reasons), dict(figures))
        values = np.array([figures[name] for name in self._names])
        dice = self._model(values[self._used])
        strange = values < self._lowest - self._span
        low_figures = (values <= self._suspect) if dice <= self._limit else strange
        reasons += [
            FIGURES[name] for name, low in zip(self._names, low_figures | strange, strict=True) if low
        ]
        flag = bool(reasons) or dice <= self._limit
        if flag and not reasons:
            reasons = ["low predicted Dice"]
        low, high = max(dice - self._error, 0.0), min(dice + self._error, 1.0)
        return Quality(dice, low, high, flag, tuple(reasons), dict(figures))


def _fit(values: NDArray[np.float64], true: NDArray[np.float64], ridge: float) -> Predictor:
    """Fit a ridge regression with weights >= 0 on standardised columns; the result predicts one row."""
    mean, sd, base = values.mean(0), np.maximum(values.std(0), 1e-9), float(true.mean())
    penalty = math.sqrt(ridge * len(true)) * np.eye(values.shape[1])
    wanted = np.concatenate([true - base, np.zeros(values.shape[1])])
    weights = nnls(np.concatenate([(values - mean) / sd, penalty]), wanted)[0]
    return lambda row: float(np.clip(base + (row - mean) / sd @ weights, 0.0, 1.0))
