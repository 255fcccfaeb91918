"""Clean-up of a segmentation, chosen for each class on validation cases and applied only where it helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from semivox.losses.components import largest_component

Mask = NDArray[np.bool_]
FEWEST = 3  # validation cases, below which nothing is chosen
_GAIN = 5e-4  # of the mean Dice, which a rule must exceed
_SHARES = (0.02, 0.1)  # of the usual volume, the smallest pieces that are tried


class Rule(BaseModel):
    """What is done to one class, in this order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest: bool = Field(default=False, description="keep the largest 26-connected piece")
    minimum_ml: float = Field(default=0.0, ge=0, description="drop smaller pieces")
    fill: bool = Field(default=False, description="fill enclosed background")


class Choice(NamedTuple):
    """A rule and the mean Dice of its class on validation cases, without and with it."""

    rule: Rule
    before: float
    after: float


def candidates(usual_ml: float) -> list[Rule]:
    """List the rules tried for a class of this usual volume, the simplest first; the first does nothing."""
    pieces = [Rule(), Rule(largest=True)]
    if usual_ml > 0:
        pieces += [Rule(minimum_ml=float(f"{share * usual_ml:.3g}")) for share in _SHARES]
    return [one.model_copy(update={"fill": fill}) for fill in (False, True) for one in pieces]


def cleaned(mask: Mask, free: Mask, rule: Rule, voxel_ml: float) -> Mask:
    """Apply a rule to the mask of one class (X, Y, Z); holes are filled where `free`, with no other class."""
    if rule.largest:
        mask = largest_component(mask)
    if rule.minimum_ml and mask.any():
        pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        large = np.bincount(pieces.ravel()) * voxel_ml >= rule.minimum_ml * (1 - 1e-6)
        large[0] = False
        mask = large[pieces]
    if rule.fill:
        mask = mask | (ndimage.binary_fill_holes(mask) & free)
    return mask


def postprocessed(label: NDArray[np.uint8], rules: Mapping[int, Rule], voxel_ml: float) -> NDArray[np.uint8]:
    """Apply the rules, by class index, to a label map (X, Y, Z); what is dropped becomes background."""
    if not rules:
        return label
    result = label.copy()
    for index, rule in rules.items():
        mask = label == index
        kept = cleaned(mask, result == 0, rule, voxel_ml)
        result[mask & ~kept] = 0
        result[kept & ~mask] = index
    return result


def scores(
    label: NDArray[np.uint8], true: NDArray[np.uint8], index: int, rules: Sequence[Rule], voxel_ml: float
) -> list[float]:
    """Return the Dice of one class under each rule; NaN where it is neither predicted nor true.

    The labels are class indices (X, Y, Z); voxels that are not annotated hold the same value in both.
    """
    mask, reference, free = label == index, true == index, label == 0
    found = []
    for rule in rules:
        kept = cleaned(mask, free, rule, voxel_ml)
        total = np.count_nonzero(kept) + np.count_nonzero(reference)
        found.append(2 * np.count_nonzero(kept & reference) / total if total else float("nan"))
    return found


def choose(rules: Sequence[Rule], dice: NDArray[np.float64]) -> Choice:
    """Choose the rule of one class by its Dice on validation cases, (cases, rules), the first being none.

    Another rule must raise the mean Dice, and help more cases than it harms.
    """
    known = dice[np.isfinite(dice[:, 0])]
    known = np.where(np.isnan(known), 1.0, known)  # a false alarm that the rule removes
    if len(known) < FEWEST:
        return Choice(rules[0], float("nan"), float("nan"))
    means, gains = known.mean(0), known - known[:, :1]
    helps = (means > means[0] + _GAIN) & ((gains > 0).sum(0) > (gains < 0).sum(0))
    best = int(np.argmax(np.where(helps, means, -1.0))) if helps.any() else 0
    return Choice(rules[best], float(means[0]), float(means[best]))
