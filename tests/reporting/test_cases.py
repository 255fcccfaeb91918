"""Cases by methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from semivox.reporting.cases import Scene, slices_figure, surfaces_figure
from semivox.reporting.slices import RasImage

Overlaps = Callable[[Figure], list[str]]


def reference() -> np.ndarray:
    label = np.zeros((60, 50, 40), np.uint8)
    label[20:40, 15:35, 10:30] = 1
    return label


def scene(
    found: dict[str, np.ndarray],
    truth: np.ndarray | None = None,
    spacing: tuple[float, ...] = (1, 1, 1),
    scores: Any = (),
    name: str = "case",
) -> Scene:
    image = np.random.default_rng(0).normal(size=(60, 50, 40)).astype(np.float32)
    truth = reference() if truth is None else truth
    return Scene(name, RasImage(image, spacing), truth, found, dict(scores))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts] + [panel.get_title() for panel in figure.axes]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_column_a_method_with_its_dice() -> None:
    found = {"first": np.roll(reference(), 4, axis=0), "second": reference()}
    figure = slices_figure([scene(found, scores={"first": 0.8, "second": 1.0})], cuts=3)
    assert texts(figure)[:5] == ["first", "second", "20 mm", "Dice 0.800", "Dice 1.000"]
    assert len(figure.axes) == 2 * 3
    assert legend(figure) == ["reference", "class 1"]


def test_slices_lie_in_the_foreground_and_the_view_around_it() -> None:
    figure = slices_figure([scene({"m": reference()}, spacing=(1.0, 1.0, 2.0))], cuts=3)
    shown = [panel.texts[-1].get_text() for panel in figure.axes]
    assert shown == ["z 27", "z 20", "z 14"]  # 1-based; the foreground is 11 to 30
    for panel in figure.axes:
        assert panel.images[0].get_array().shape == (30, 30)  # 20 voxels and a quarter on each side
        assert len(panel.collections) == 2  # the outline of the result and of the reference


def test_the_plane_is_that_with_the_finest_pixels() -> None:
    figure = slices_figure([scene({"m": reference()}, spacing=(1, 8, 1))], "bL", cuts=3)
    letters = [[text.get_text() for text in panel.texts] for panel in figure.axes]
    assert [found[-1][:2] for found in letters] == ["y "] * 3
    assert letters[0][:4] == list("RLSI")
    assert legend(figure) == ["reference", "L"]


def test_result_that_is_empty_or_reference_that_is() -> None:
    full, empty = reference(), reference() * 0
    for truth, found in ((full, empty), (empty, full), (empty, empty)):
        assert len(slices_figure([scene({"m": found}, truth)], cuts=3).axes) == 3


@pytest.mark.parametrize(
    ("methods", "classes", "spacing", "cases"),
    [(1, 1, (1, 3, 1), 1), (2, 3, (1, 1, 1), 1), (4, 2, (3, 1, 1), 1), (1, 14, (3, 1, 1), 1),
     (3, 2, (1, 1, 2), 2)],
)  # fmt: skip
def test_nothing_overlaps(
    methods: int, classes: int, spacing: tuple[float, ...], cases: int, overlaps: Overlaps
) -> None:
    label = reference() * (1 + np.arange(60, dtype=np.uint8) % classes)[:, None, None]
    names = ["background", *(f"structure with a name {index}" for index in range(classes))]
    labels = {f"{index}: a method with a long name": label for index in range(methods)}
    one = scene(labels, label, spacing, dict.fromkeys(labels, 0.5), "a case " * 8)
    title = "a case with a long name " * 8
    figure = slices_figure([one] * cases, names, title, cuts=2, cell=2.9 if cases == 1 else 1.5)
    assert not overlaps(figure)


def test_several_cases_have_the_reference_in_the_first_column() -> None:
    found = {"supervised": np.roll(reference(), 2, 0), "dual": reference() * 0}
    scenes = [scene(found, scores={"dual": 0.0}, name=f"case {n}") for n in (1, 2)]
    for figure in (slices_figure(scenes, "bL", "cases"), surfaces_figure(scenes, "bL", "cases")):
        assert len(figure.axes) == 2 * 3
        assert texts(figure).count("Dice 0.000") == 2
        assert {"reference", "supervised", "dual", "case 2"} <= set(texts(figure))


def test_many_methods_stand_in_bands_of_rows(overlaps: Overlaps) -> None:
    names = [f"m{index}" for index in range(8)]
    found = {name: reference() for name in names}
    scenes = [scene(found, scores=dict.fromkeys(names, 0.5), name=f"case {n}") for n in (1, 2)]
    figure = slices_figure(scenes, "bL", "cases", note="not as published: 3 iterations (6000)")
    assert len(figure.axes) == 2 * (8 + 2), "each band repeats the reference"
    placed = {text.get_text(): text.get_position() for text in figure.texts}
    assert placed["m0"][1] == placed["m3"][1] > placed["m4"][1] == placed["m7"][1]
    assert placed["m0"][0] == placed["m4"][0] and "not as published: 3 iterations (6000)" in placed
    assert not overlaps(figure)


@pytest.mark.real
def test_real_atrium(real_data: Path) -> None:
    path = min((real_data / "la2018" / "labelsTr").glob("*.nii.gz"))
    label = np.asarray(nib.load(path).dataobj).astype(np.uint8)
    scan = path.parents[1] / "imagesTr" / path.name.replace(".nii", "_0000.nii")
    image = RasImage(np.asarray(nib.load(scan).dataobj, np.float32), (0.625,) * 3)
    figure = slices_figure([Scene("x", image, label, {"shifted": np.roll(label, 5, 0)}, {})], cuts=1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba())[..., :3].std() > 25
