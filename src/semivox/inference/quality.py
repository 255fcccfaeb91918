"""How good a segmentation is likely to be: figures of a prediction, and the Dice that follows from them.

The figures need no reference. What they are worth is learned from validation cases: a ridge regression in
which a better figure never lowers the Dice, and an interval from its leave-one-out errors.

The mean of several predictions (networks, overlapping windows, views) has the entropy H(mean p). The part of
it in which they contradict each other is the mutual information H(mean p) - mean H(p); the rest is doubt that
they share (Smith and Gal, Understanding Measures of Uncertainty for Adversarial Example Detection, UAI 2018).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import nnls
from torch import Tensor

from semivox.inference.postprocess import Rule
from semivox.losses.components import largest_component
from semivox.losses.prediction import winner

# What a Dice is predicted from (docs/results/quality.md), and the smallest spread of it that means anything:
# validation cases that are all of usual volume, in one piece, or as sure, do not tell what others are worth.
LEARNED = {"soft_dice": 0.003, "certainty": 0.005, "volume": 1.0, "connected": 0.03}
LEVEL = 0.9  # of the interval
FEWEST = 9  # validation cases; with fewer no Dice is predicted, since its interval would have no end
FLAG_SHARE = 0.2  # of the scans of a folder
_RIDGE = 0.3  # of the number of cases; not chosen on them: that would make their errors too small
_TOP = 1.01  # a Dice of 1 has a finite logarithm
FLOOR = 1e-7  # of a probability, before its logarithm
_FAR = 6.0  # standard deviations of a volume from which on more make no difference
# Figure: what it means where it is low. All grow with quality.
FIGURES = {
    "soft_dice": "outlines are uncertain",
    "certainty": "classes inside are uncertain",
    "agreement": "networks or windows disagree",
    "volume": "unusual volume",
    "connected": "several pieces",
}
_Array = NDArray[np.float64]
_SPREADS: _Array = np.array(list(LEARNED.values()))


class Volumes(BaseModel):
    """The volumes of one foreground class in the labeled cases, as logarithms of mL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    sd: float
    always: bool  # whether every labeled case has the class


class Calibration(BaseModel):
    """What validation and labeled cases tell of a model's predictions; `calibration` of `model.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=1.0, gt=0)  # softens (above 1) or sharpens, see `tempered`
    postprocess: dict[str, Rule] = {}  # clean-up of a class, by its name, where it helped
    volumes: tuple[Volumes, ...] = ()  # of each foreground class in the labeled cases
    cases: tuple[str, ...] = ()  # names of the validation cases; models of 0.1 lack them
    figures: dict[str, tuple[float, ...]] = {}  # of each validation case, see `FIGURES`
    dice: tuple[float, ...] = ()  # of each validation case, mean over the classes, after the clean-up
    measured: dict[str, float] = {}  # what it was worth on the validation cases, for the record

    @classmethod
    def pooled(cls, runs: Sequence[Calibration]) -> Calibration:
        """Judge several runs together: all their validation cases, and the geometric mean temperature.

        A case that validated several runs counts once, with the means of its figures and of its Dice. A
        clean-up stays where more than half of the runs have it; figures that one run lacks are left out.
        """
        names = sorted(set.intersection(*(set(run.figures) for run in runs)))
        rows: dict[object, list[list[float]]] = {}
        for number, run in enumerate(runs):
            for place, dice in enumerate(run.dice if names else ()):
                case = run.cases[place] if run.cases else (number, place)
                rows.setdefault(case, []).append([dice, *(run.figures[name][place] for name in names)])
        means = [np.mean(found, axis=0).tolist() for found in rows.values()]
        rules = Counter(pair for run in runs for pair in run.postprocess.items())
        return cls(
            temperature=math.exp(sum(math.log(run.temperature) for run in runs) / len(runs)),
            postprocess={name: rule for (name, rule), count in rules.items() if 2 * count > len(runs)},
            volumes=runs[0].volumes,
            cases=tuple(map(str, rows)) if all(run.cases for run in runs) else (),
            figures={name: tuple(row[place] for row in means) for place, name in enumerate(names, start=1)},
            dice=tuple(row[0] for row in means),
        )


class Quality(NamedTuple):
    """What is predicted of one segmentation."""

    dice: float  # mean over the foreground classes, 0 to 1; NaN where there are too few validation cases
    low: float  # interval of `LEVEL`; NaN likewise
    high: float
    alarms: tuple[str, ...]  # why somebody has to look at it, whatever the others are like, in words
    reasons: tuple[str, ...]  # its figures among the lowest fifth of the validation cases, in words
    figures: dict[str, float]  # see `FIGURES`


def flagged(dice: Sequence[float], alarms: Sequence[bool], share: float = FLAG_SHARE) -> list[bool]:
    """Tell which scans of a folder to look at: all with alarms, then the lowest `dice`, up to the share.

    `dice` may be any figure that grows with quality. The share is rounded down; scans with alarms count, and
    are flagged beyond it, too.
    """
    most = int(share * len(dice) + 1e-9)
    worst = sorted(range(len(dice)), key=lambda index: (not alarms[index], dice[index]))[:most]
    return [alarm or index in worst for index, alarm in enumerate(alarms)]


def entropy(probs: Tensor) -> Tensor:
    """(K, ...) -> (...): the entropy over the classes, as a share of the largest possible one, 0 to 1."""
    total = torch.zeros_like(probs[0])
    for values in probs:
        total -= torch.special.xlogy(values, values)
    return total.clamp_(min=0) / math.log(len(probs))


def tempered(probs: Tensor, temperature: float) -> Tensor:
    """Return p^(1/T) / sum over the classes: softer for T above 1; the most probable class stays the same."""
    if temperature == 1.0:
        return probs
    powers = probs.clamp(min=0) ** (1 / temperature)
    return powers / powers.sum(0, keepdim=True).clamp(min=FLOOR)


def certainty(probs: Tensor, temperature: float) -> float:
    """Average the calibrated probability (K, ...) of the most probable class where that is foreground."""
    found = probs.flatten(1)
    inside = found[:, winner(found) > 0]
    return float(tempered(inside, temperature).amax(0).mean()) if inside.numel() else 0.0


def measure(probs: Tensor, doubt: Tensor, voxel_ml: float, known: Calibration) -> dict[str, float]:
    """Compute the figures of a prediction, see `FIGURES`; each grows with quality.

    `soft_dice` is the Dice of the probabilities with the segmentation made of them, of the worst class
    found; `certainty` see there; `agreement` is minus the sum of the mutual information over the number of
    foreground voxels; `volume` is minus the largest distance, in standard deviations of the logarithm, to the
    volumes of the labeled cases; `connected` is the mean share of a class in its largest piece.

    Args:
        probs: (K, X, Y, Z), before any calibration.
        doubt: (X, Y, Z), mean entropy of members, views and windows.
        voxel_ml: volume of a voxel.
        known: temperature, and volumes of the foreground classes; without volumes, `volume` is 0.
    """
    probs = probs.detach()
    label = winner(probs)
    contradiction = float((entropy(probs) - doubt.detach()).clamp(min=0).sum())
    soft, connected = [], []
    for index in range(1, len(probs)):
        mask = label == index
        if (size := int(mask.sum())) == 0:
            continue
        soft.append(float(2 * probs[index][mask].sum() / (size + probs[index].sum())))
        connected.append(np.count_nonzero(largest_component(mask.cpu().numpy())) / size)
    millilitres = voxel_ml * torch.bincount(label.flatten(), minlength=len(probs))[1:].double().cpu().numpy()
    return {
        "soft_dice": min(soft, default=0.0),
        "certainty": certainty(probs[:, label > 0], known.temperature),
        "agreement": -contradiction / max(int((label > 0).sum()), 1),
        "volume": -max(map(_distance, millilitres, known.volumes), default=0.0),
        "connected": float(np.mean(connected)) if connected else 0.0,
    }


def _distance(millilitres: float, usual: Volumes) -> float:
    if millilitres <= 0:
        return _FAR if usual.always else 0.0
    return float(min(abs(math.log(millilitres) - usual.mean) / usual.sd, _FAR))


class Judge:
    """Predicts the Dice of a segmentation from its figures.

    Ridge regression with weights >= 0 of z = -log(1.01 - Dice) on the standardised figures `LEARNED`, around
    the median of the validation cases, so that one failure among them does not shift all others. The interval
    is that of the jackknife+ (Barber et al., Predictive Inference with the Jackknife+, Annals of Statistics
    2021): of n validation cases, each is predicted by the fit to the others, with error r; the interval of a
    new scan ends at the k-th largest of that fit's prediction plus r, k = floor((n + 1) (1 - LEVEL)), and
    likewise below. It holds for scans drawn like the validation cases, on average over such draws, and not
    for others.

    Args:
        figures: of each validation case.
        dice: of each validation case, of the segmentation as it is delivered.

    Attributes:
        known: whether there are enough cases, with these figures, to predict anything.
        left_out: the Dice of each case, predicted from the others.
    """

    def __init__(self, figures: Mapping[str, Sequence[float]], dice: Sequence[float]) -> None:
        self.known = len(dice) >= FEWEST and set(LEARNED) <= set(figures)
        if not self.known:
            return
        values, true = np.array([figures[name] for name in LEARNED]).T, -np.log(_TOP - np.array(dice))
        self._lowest, self._span = values.min(0), np.maximum(np.ptp(values, axis=0), _SPREADS)
        self._suspect, self._usual = np.quantile(values, (FLAG_SHARE, 0.5), axis=0)
        self._fit = _fit(values, true)
        others = [np.arange(len(true)) != case for case in range(len(true))]
        self._without = [_fit(values[rows], true[rows]) for rows in others]
        left_out = np.array([fit(row) for fit, row in zip(self._without, values, strict=True)])
        self._errors, self.left_out = np.abs(left_out - true), _dice(left_out)

    def judge(self, figures: Mapping[str, float], absent: Sequence[str] = ()) -> Quality:
        """Predict the Dice of a segmentation with these figures, and say why somebody should look at it.

        `absent` are classes that every labeled case has and this segmentation has not.
        """
        alarms, nan = [f"no {name} found" for name in absent], float("nan")
        if not self.known:
            return Quality(nan, nan, nan, tuple(alarms), (), dict(figures))
        values = np.array([figures[name] for name in LEARNED])
        strange = values < self._lowest - self._span
        weak = (values <= self._suspect) & (values < self._usual)
        alarms += [FIGURES[name] for name, is_so in zip(LEARNED, strange, strict=True) if is_so]
        reasons = [FIGURES[name] for name, is_so in zip(LEARNED, weak & ~strange, strict=True) if is_so]
        place = int((len(self._errors) + 1) * (1 - LEVEL) + 1e-9)
        centers = np.array([fit(values) for fit in self._without])
        ends = [np.sort(centers - self._errors)[place - 1], np.sort(centers + self._errors)[-place]]
        dice, low, high = _dice(np.array([self._fit(values), *ends])).tolist()
        return Quality(dice, low, high, tuple(alarms), tuple(reasons), dict(figures))


def _dice(values: _Array) -> _Array:
    return np.clip(_TOP - np.exp(-values), 0.0, 1.0)


def _fit(values: _Array, true: _Array) -> Callable[[_Array], float]:
    """Fit a ridge regression with weights >= 0 on standardised columns; the result predicts one row."""
    mean, sd, base = values.mean(0), np.maximum(values.std(0), _SPREADS), float(np.median(true))
    penalty = math.sqrt(_RIDGE * len(true)) * np.eye(values.shape[1])
    wanted = np.concatenate([true - base, np.zeros(values.shape[1])])
    weights = nnls(np.concatenate([(values - mean) / sd, penalty]), wanted)[0]
    return lambda row: float(base + (row - mean) / sd @ weights)
