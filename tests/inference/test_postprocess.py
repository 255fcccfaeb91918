"""Clean-up and how it is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from semivox.inference.postprocess import Rule, candidates, choose, cleaned, postprocessed, scores


@pytest.fixture
def label() -> np.ndarray:
    """Class 1: a hollow cube of 26 voxels and a single voxel; class 2: two voxels, one inside the cube."""
    label = np.zeros((9, 9, 9), np.uint8)
    label[1:4, 1:4, 1:4] = 1
    label[2, 2, 2] = 0
    label[7, 7, 7] = 1
    label[5, 5, 5] = 2
    return label


def test_rules_by_hand(label):
    free = label == 0
    mask = label == 1
    assert cleaned(mask, free, Rule(largest=True), 1.0).sum() == 26
    assert cleaned(mask, free, Rule(fill=True), 1.0).sum() == 28
    assert cleaned(mask, free, Rule(minimum_ml=13.0), 0.5).sum() == 26
    assert cleaned(mask, free, Rule(minimum_ml=13.1), 0.5).sum() == 0
    assert cleaned(mask, free, Rule(), 1.0) is mask


def test_holes_are_filled_with_no_other_class(label):
    label[2, 2, 2] = 2
    found = postprocessed(label, {1: Rule(fill=True, largest=True), 2: Rule(largest=True)}, 1.0)
    assert found[2, 2, 2] == 2 and found[7, 7, 7] == 0
    assert (found == 2).sum() == 1 and (label == 2).sum() == 2
    assert postprocessed(label, {}, 1.0) is label


def test_scores(label):
    true = np.zeros_like(label)
    true[1:4, 1:4, 1:4] = 1
    found = scores(label, true, 1, [Rule(), Rule(largest=True), Rule(largest=True, fill=True)], 1.0)
    assert found == [pytest.approx(2 * 26 / 54), pytest.approx(2 * 26 / 53), pytest.approx(1.0)]
    assert np.isnan(scores(label, true, 3, [Rule()], 1.0)[0])


def test_only_what_helps_is_chosen():
    rules = candidates(10.0)
    assert rules[0] == Rule() and Rule(minimum_ml=1.0, fill=True) in rules and len(rules) == 8
    dice = np.full((4, len(rules)), 0.8)
    assert choose(rules, dice).rule == Rule()
    dice[:, 1] += (0.02, 0.02, 0.02, -0.01)
    dice[:, 2] += (0.2, -0.01, -0.01, -0.01)  # a higher mean, but it harms more cases than it helps
    chosen = choose(rules, dice)
    assert chosen.rule == Rule(largest=True)
    assert (chosen.before, chosen.after) == (pytest.approx(0.8), pytest.approx(0.8125))
    assert choose(rules, dice[:2]).rule == Rule()


def test_a_false_alarm_that_disappears_counts_as_a_gain():
    rules = [Rule(), Rule(minimum_ml=5.0)]
    dice = np.array([[0.0, np.nan], [0.0, np.nan], [0.9, 0.9], [np.nan, np.nan]])
    assert choose(rules, dice).rule == rules[1]
