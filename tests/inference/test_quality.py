"""Figures of a prediction, and the Dice predicted from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semivox.inference.calibrate import class_volumes
from semivox.inference.quality import FIGURES, Calibration, Judge, Volumes, entropy, flagged, measure


def maps(*foreground: list[float]) -> torch.Tensor:
    """Probabilities (K, N, 1, 1) whose background is the rest."""
    probs = torch.tensor([[1 - sum(column) for column in zip(*foreground, strict=True)], *foreground])
    return probs[:, :, None, None]


def figures_of(probs: torch.Tensor, doubt: torch.Tensor | None = None, **known) -> dict[str, float]:
    return measure(probs, entropy(probs) if doubt is None else doubt, 0.5, Calibration(**known))


def test_figures_by_hand():
    probs = maps([0.9, 0.6, 0.0, 0.3, 0.0, 0.8])
    figures = figures_of(probs, volumes=(Volumes(mean=math.log(1.5), sd=0.1, always=True),))
    assert figures["soft_dice"] == pytest.approx(2 * (0.9 + 0.6 + 0.8) / (3 + 2.6))
    assert figures["certainty"] == pytest.approx((0.9 + 0.6 + 0.8) / 3)
    assert figures["agreement"] == pytest.approx(0.0, abs=1e-6)
    assert figures["volume"] == pytest.approx(0.0)
    assert figures["connected"] == pytest.approx(2 / 3)
    sharp = [p**2 / (p**2 + (1 - p) ** 2) for p in (0.9, 0.6, 0.8)]
    assert figures_of(probs, temperature=0.5)["certainty"] == pytest.approx(sum(sharp) / 3)
    assert figures_of(maps([0.1, 0.2])) == {
        **dict.fromkeys(FIGURES, 0.0),
        "agreement": pytest.approx(0.0, abs=1e-6),
    }


def test_members_that_contradict_each_other_lower_the_agreement_alone():
    probs = maps([0.5, 1.0])
    sure = torch.zeros(2, 1, 1)  # each member is certain, and they say the opposite in the first voxel
    doubtful, contradicting = figures_of(probs), figures_of(probs, sure)
    assert contradicting["agreement"] == pytest.approx(-1.0)  # one bit in one foreground voxel
    assert doubtful["agreement"] == pytest.approx(0.0)
    assert {**contradicting, "agreement": 0} == {**doubtful, "agreement": 0}


def test_a_missing_class_has_an_unusual_volume_only_where_it_is_always_there():
    probs = maps([0.9, 0.0], [0.0, 0.0])
    first = Volumes(mean=math.log(0.5), sd=0.1, always=True)
    for always, expected in ((True, -6.0), (False, 0.0)):
        second = Volumes(mean=0.0, sd=0.1, always=always)
        assert figures_of(probs, volumes=(first, second))["volume"] == pytest.approx(expected)


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


def rows_of(figures: dict[str, list[float]]) -> list[dict[str, float]]:
    return [dict(zip(figures, row, strict=True)) for row in zip(*figures.values(), strict=True)]


def middle_of(figures: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in figures.items()}


def test_dice_is_learned_and_no_good_figure_lowers_it():
    figures, dice = cases(40)
    judge, (new, true), usual = Judge(figures, dice), cases(200, seed=1), middle_of(figures)
    found = [judge.judge(row).dice for row in rows_of(new)]
    assert np.corrcoef(found, true)[0, 1] > 0.9
    for name in FIGURES:
        assert judge.judge({**usual, name: usual[name] + 0.05}).dice >= judge.judge(usual).dice


@pytest.mark.parametrize("count", [9, 20])
def test_interval_covers_what_it_says_also_with_few_cases(count):
    """Over many draws of validation cases, as the theorem is about; the last figure of the Dice is noise."""
    inside = []
    for seed in range(40):
        (figures, _), rng = cases(count + 20, seed=seed), np.random.default_rng(100 + seed)
        dice = np.clip(np.array(figures["soft_dice"]) + rng.normal(0, 0.1, count + 20), 0, 1)
        judge = Judge({name: values[:count] for name, values in figures.items()}, dice[:count])
        found = [judge.judge(row) for row in rows_of(figures)[count:]]
        inside += [one.low <= value <= one.high for one, value in zip(found, dice[count:], strict=True)]
    assert 0.86 <= np.mean(inside) <= 0.97


def test_interval_by_a_second_implementation():
    """From fits without each case, on the scale of -log(1.01 - Dice)."""
    (figures, dice), low, high = cases(20), [], []
    new, scale = middle_of(figures), lambda value: -math.log(1.01 - value)
    for left_out, row in enumerate(rows_of(figures)):
        others = {name: np.delete(values, left_out).tolist() for name, values in figures.items()}
        one = Judge(others, np.delete(dice, left_out))
        error = abs(scale(one.judge(row).dice) - scale(dice[left_out]))
        low.append(scale(one.judge(new).dice) - error)
        high.append(scale(one.judge(new).dice) + error)
    found = Judge(figures, dice).judge(new)
    assert scale(found.low) == pytest.approx(sorted(low)[1])  # floor(21 * 0.1) = second of 20
    assert scale(found.high) == pytest.approx(sorted(high)[-2])


def test_one_failure_does_not_shift_the_others():
    figures, dice = cases(20)
    worthless = {name: [0.0] * 20 for name in figures}
    dice[3] = 0.0
    assert Judge(worthless, dice).judge(middle_of(worthless)).dice == pytest.approx(np.median(dice), abs=0.01)


def test_a_spread_too_small_to_mean_anything_is_not_stretched():
    """Of an atrium in one piece in all validation cases, 1.4 % elsewhere had been 40 standard deviations."""
    figures, dice = cases(10)
    figures["connected"] = [1.0 - 1e-4 * (0.9 - value) for value in dice]  # tells the Dice, by chance
    judge, usual = Judge(figures, dice), middle_of(figures)
    whole, less = judge.judge({**usual, "connected": 1.0}), judge.judge({**usual, "connected": 0.986})
    assert whole.dice - 0.05 < less.dice < whole.dice
    assert less.high - less.low < whole.high - whole.low + 0.1
    assert less.alarms == () and judge.judge({**usual, "connected": 0.9}).alarms == ("several pieces",)


def test_validation_cases_that_are_all_as_sure_do_not_condemn_others():
    """Of five cases with a certainty of 0.894 to 0.897, a scan with 0.873 once had a predicted Dice of 0."""
    figures, dice = cases(10)
    figures["certainty"] = [0.9 - 1e-3 * (0.9 - value) for value in dice]  # tells the Dice, by chance
    judge, usual = Judge(figures, dice), middle_of(figures)
    assert judge.judge({**usual, "certainty": 0.89}).dice > judge.judge(usual).dice - 0.1


def test_alarms_and_reasons():
    figures, dice = cases(40)
    judge, usual = Judge(figures, dice), middle_of(figures)
    assert judge.judge(usual).alarms == judge.judge(usual).reasons == ()
    assert judge.judge({**usual, "soft_dice": 0.3 + 0.5 * 0.5}).reasons == ("outlines are uncertain",)
    strange = judge.judge({**usual, "volume": -6.0})
    assert (strange.alarms, strange.reasons) == (("unusual volume",), ())
    assert judge.judge(usual, ["atrium"]).alarms == ("no atrium found",)
    whole = {**figures, "connected": [1.0] * 40}
    assert Judge(whole, dice).judge({**usual, "connected": 1.0}).reasons == (), "as all validation cases"


def test_exactly_the_share_is_flagged_and_every_alarm():
    dice, none = [0.9, 0.5, 0.7, 0.6, 0.8], [False] * 5
    assert flagged(dice, none, 0.4) == [False, True, False, True, False]
    assert flagged(dice, none, 0.39) == [False, True, False, False, False]
    assert flagged(dice, [True, *none[1:]], 0.4) == [True, True, False, False, False]
    assert flagged(dice, [True] * 5, 0.4) == [True] * 5
    assert sum(flagged(dice * 20, none * 20, 0.29)) == 29
    assert flagged([], []) == []


def test_few_validation_cases_tell_nothing():
    for count in (5, 8, 9):
        figures, dice = cases(count)
        found = Judge(figures, dice).judge({**middle_of(figures), "certainty": -1e3})
        assert np.isnan([found.dice, found.low, found.high]).tolist() == [count < 9] * 3
        assert found.alarms == (() if count < 9 else ("classes inside are uncertain",))
    assert Judge({}, []).judge({}, ["atrium"]).alarms == ("no atrium found",)
