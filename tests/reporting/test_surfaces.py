"""Shaded surfaces: where they are, which way they look, which class is in front."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from semivox.reporting.style import BACKGROUND, class_color
from semivox.reporting.surfaces import frame_foreground, render

SPACING = (1.0, 1.0, 2.0)
BACK = np.round(np.array(to_rgb(BACKGROUND)) * 255)


def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
    """A ball in mm on a grid of 60 x 60 x 30 voxels of `SPACING`."""
    mm = np.indices((60, 60, 30)).astype(float) * np.array(SPACING)[:, None, None, None]
    return np.sqrt(sum((mm[i] - center[i]) ** 2 for i in range(3))) <= radius


def test_a_ball_is_a_disc_of_its_size_lit_from_the_upper_left() -> None:
    label = ball((30, 30, 30), 20).astype(np.int64)
    frame = frame_foreground([label], SPACING)
    picture = render(label, SPACING, frame, 100).astype(float)
    seen = (picture != BACK).any(axis=2)
    radius = 20 / frame.side * 100  # pixels
    assert seen.sum() == pytest.approx(np.pi * radius**2, rel=0.06)
    bright = np.where(seen, picture.sum(axis=2), 0)
    assert bright[:50, :50].mean() > 1.2 * bright[50:, 50:].mean()


def test_the_patients_left_is_at_the_right_and_the_head_on_top() -> None:
    label = ball((30, 30, 30), 4) * 1 + ball((50, 30, 30), 4) * 2 + ball((30, 30, 50), 4) * 3
    picture = render(label, SPACING, frame_foreground([label], SPACING), 120).astype(float)
    centers = {}
    for index in (1, 2, 3):
        hue = np.array(to_rgb(class_color(index)))
        norm = np.linalg.norm(picture, axis=2) * np.linalg.norm(hue)
        alike = (picture @ hue > 0.999 * norm) & (picture != BACK).any(axis=2)
        centers[index] = np.argwhere(alike).mean(axis=0)
    assert centers[2][1] < centers[1][1], "x grows to the patient's right, which is at the left"
    assert centers[3][0] < centers[1][0], "z grows to the head, which is on top"


def test_what_is_in_front_hides_what_is_behind() -> None:
    label = ball((30, 20, 30), 10) * 1
    label[ball((24, 45, 36), 14)] = 2  # nearer to the viewer, who stands in front, on the left, above
    both = render(label, SPACING, frame := frame_foreground([label], SPACING), 80)
    alone = render(np.where(label == 2, 2, 0), SPACING, frame, 80)
    shown = (alone != BACK).any(axis=2)
    assert np.array_equal(both[shown], alone[shown])


def test_nothing_is_an_empty_picture() -> None:
    label = np.zeros((8, 8, 8), np.int64)
    assert (render(label, SPACING, frame_foreground([label], SPACING), 16) == BACK).all()
