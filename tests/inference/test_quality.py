"""Figures of a prediction, and the Dice predicted from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semivox.inference.quality import FIGURES, Judge, Volumes, class_volumes, measure
from semivox.inference.uncertainty import entropy


def maps(*foreground: list[float]) -> torch.Tensor:
    """Probabilities (K, N, 1, 1) whose background is the rest."""
    probs = torch.tensor([[1 - sum(column) for column in zip(*foreground, strict=True)], *foreground])
    return probs[:, :, None, None]


def test_figures_by_hand():
    probs = maps([0.9, 0.6, 0.0, 0.3, 0.0, 0.8])
    figures = measure(probs, entropy(probs), 0.5, [Volumes(mean=math.log(1.5), sd=0.1, always=True)])
    assert figures["soft_dice"] == pytest.approx(2 * (0.9 + 0.6 + 0.8) / (3 + 2.6))
    bits = [-(p * math.log2(p) + (1 - p) * math.log2(1 - p)) for p in (0.9, 0.6, 0.3, 0.8)]
    assert figures["sharpness"] == pytest.approx(-sum(bits) / 3, rel=1e-5)
    assert figures["agreement"] == pytest.approx(0.0, abs=1e-6)
    assert figures["volume"] == pytest.approx(0.0)
    assert figures["connected"] == pytest.approx(2 / 3)


def test_members_that_contradict_each_other_lower_the_agreement_alone():
    probs = maps([0.5, 1.0])
    sure = torch.zeros(2, 1, 1)  # each member is certain, and they say the opposite in the first voxel
    doubtful = measure(probs, entropy(probs), 1.0, [])
    contradicting = measure(probs, sure, 1.0, [])
    assert contradicting["agreement"] == pytest.approx(-1.0)  # one bit in one foreground voxel
    assert doubtful["agreement"] == pytest.approx(0.0)
    assert {**contradicting, "agreement": 0} == {**doubtful, "agreement": 0}


def test_a_missing_class_has_an_unusual_volume_only_where_it_is_always_there():
    probs = maps([0.9, 0.0], [0.0, 0.0])
    first = Volumes(mean=math.log(1.0), sd=0.1, always=True)
    for always, expected in ((True, -6.0), (False, 0.0)):
        second = Volumes(mean=0.0, sd=0.1, always=always)
        assert measure(probs, entropy(probs), 1.0, [first, second])["volume"] == pytest.approx(expected)


def test_class_volumes():
    found = class_volumes(np.array([[math.e, 0.0], [math.e**3, 5.0]]))
    assert found[0] == Volumes(mean=2.0, sd=math.sqrt(2), always=True)
    assert (found[1].mean, found[1].sd, found[1].always) == (pytest.approx(math.log(5)), 0.1, False)


def cases(count: int, seed: int = 0) -> tuple[dict[str, list[float]], np.ndarray]:
    """Figures of which `soft_dice` tells the Dice, `volume` is its opposite and the others are noise."""
    rng = np.random.default_rng(seed)
    dice = rng.uniform(0.5, 0.9, count)
    figures = {name: rng.normal(size=count).tolist() for name in FIGURES}
    figures["soft_dice"] = (0.3 + 0.5 * dice + rng.normal(0, 0.01, count)).tolist()
    figures["volume"] = (-dice).tolist()
    return figures, dice


def test_dice_is_learned_and_no_good_figure_lowers_it():
    figures, dice = cases(40)
    judge = Judge(figures, dice)
    new, true = cases(200, seed=1)
    found = [judge.judge({name: values[row] for name, values in new.items()}) for row in range(200)]
    assert np.corrcoef([one.dice for one in found], true)[0, 1] > 0.9
    inside = np.mean([one.low <= value <= one.high for one, value in zip(found, true, strict=True)])
    assert 0.8 <= inside <= 0.99
    usual = {name: float(np.mean(values)) for name, values in figures.items()}
    for name in FIGURES:
        assert judge.judge({**usual, name: usual[name] + 0.05}).dice >= judge.judge(usual).dice


def test_interval_is_the_conformal_one():
    figures, dice = cases(20)
    judge = Judge(figures, dice)
    errors = np.sort(np.abs(judge.left_out - dice))
    middle = judge.judge({name: float(np.mean(values)) for name, values in figures.items()})
    assert middle.high - middle.dice == pytest.approx(errors[18])  # ceil(21 * 0.9) = 19th of 20


def test_flags():
    figures, dice = cases(40)
    judge = Judge(figures, dice)
    usual = {name: float(np.mean(values)) for name, values in figures.items()}
    assert not judge.judge(usual).flag
    bad = judge.judge({**usual, "soft_dice": 0.3 + 0.5 * 0.5})
    assert bad.flag and "outlines are uncertain" in bad.reasons
    strange = judge.judge({**usual, "volume": -6.0})
    assert strange.flag and strange.reasons == ("unusual volume",)
    lost = judge.judge(usual, ["atrium"])
    assert lost.flag and lost.reasons == ("no atrium found",)


def test_too_few_validation_cases_predict_nothing():
    figures, dice = cases(4)
    found = Judge(figures, dice).judge({name: values[0] for name, values in figures.items()})
    assert math.isnan(found.dice) and not found.flag
    assert Judge({}, []).judge({}, ["atrium"]).flag
