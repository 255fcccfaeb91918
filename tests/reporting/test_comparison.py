"""Comparison of methods."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from semivox.reporting import comparison as module
from semivox.reporting.comparison import save_comparison

Capture = Callable[[], Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Capture:
    """The figure that was saved last."""
    figures: list[Figure] = []
    monkeypatch.setattr(module, "save_png", lambda figure, path: figures.append(figure))
    return lambda: figures[-1]


def case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).normal(size=(2, 60, 50, 40)).astype(np.float32)
    reference = np.zeros(image.shape[1:], np.uint8)
    reference[20:40, 15:35, 10:30] = 1
    return image, reference, np.roll(reference, 4, axis=0)


def boxes_apart(figure: Figure) -> bool:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    boxes = [text.get_window_extent(renderer) for text in texts] + [
        panel.get_window_extent(renderer) for panel in figure.axes
    ]
    page = figure.bbox.padded(1)
    inside = all(page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1 for b in boxes)
    shrunk = [box.padded(-0.5) for box in boxes]
    return inside and not any(a.overlaps(b) for a, b in combinations(shrunk, 2))


def test_one_column_a_method_with_its_dice(drawn: Capture) -> None:
    image, reference, result = case()
    labels = {"first": result, "second": reference}
    save_comparison(Path("x.png"), image, reference, labels, (1, 1, 1), scores={"first": 0.8, "second": 1.0})
    figure = drawn()
    assert [text.get_text() for text in figure.texts[:4]] == ["first", "Dice 0.800", "second", "Dice 1.000"]
    assert len(figure.axes) == 2 * 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["reference", "class 1"]


def test_slices_lie_in_the_foreground_and_the_view_around_it(drawn: Capture) -> None:
    image, reference, _ = case()
    save_comparison(Path("x.png"), image, reference, {"m": reference}, (1.0, 1.0, 2.0))
    shown = [panel.texts[0].get_text() for panel in drawn().axes]
    assert shown == ["z 27", "z 20", "z 14"]  # 1-based; the foreground is 11 to 30
    for panel in drawn().axes:
        assert panel.images[0].get_array().shape == (30, 30)  # 20 voxels and a quarter on each side
        assert len(panel.collections) == 2  # the outline of the result and of the reference


def test_the_plane_is_that_with_the_finest_pixels(drawn: Capture) -> None:
    image, reference, _ = case()
    save_comparison(
        Path("x.png"), image, reference, {"m": reference}, (1, 8, 1), axes="RAS", class_names="bL"
    )
    panels = drawn().axes
    assert [panel.texts[0].get_text()[:2] for panel in panels] == ["y "] * 3
    assert [text.get_text() for text in panels[0].texts[1:]] == list("RLSI")
    assert [text.get_text() for text in drawn().legends[0].get_texts()] == ["reference", "L"]


def test_result_that_is_empty_or_reference_that_is(drawn: Capture) -> None:
    image, reference, _ = case()
    for truth, found in ((reference, reference * 0), (reference * 0, reference), (reference * 0,) * 2):
        save_comparison(Path("x.png"), image, truth, {"m": found}, (1, 1, 1))
        assert len(drawn().axes) == 3


@pytest.mark.parametrize(
    ("methods", "classes", "spacing"),
    [(1, 1, (1, 3, 1)), (2, 3, (1, 1, 1)), (2, 3, (1, 3, 1)), (4, 2, (3, 1, 1)), (1, 14, (3, 1, 1))],
)
def test_nothing_overlaps(
    methods: int, classes: int, spacing: tuple[float, float, float], drawn: Capture
) -> None:
    image, reference, _ = case()
    label = reference * (1 + np.arange(60, dtype=np.uint8) % classes)[:, None, None]
    names = ["background", *(f"structure with a name {index}" for index in range(classes))]
    labels = {f"{index}: a method with a long name": label for index in range(methods)}
    save_comparison(
        Path("x.png"),
        image,
        label,
        labels,
        spacing,
        scores=dict.fromkeys(labels, 0.5),
        title="a case with a long name " * 8,
        class_names=names,
        axes="RAS",
    )
    assert boxes_apart(drawn())


@pytest.mark.real
def test_real_atrium(real_data: Path, tmp_path: Path) -> None:
    path = min((real_data / "la2018" / "labelsTr").glob("*.nii.gz"))
    label = np.asarray(nib.load(path).dataobj).astype(np.uint8)
    scan = path.parents[1] / "imagesTr" / path.name.replace(".nii", "_0000.nii")
    image = np.asarray(nib.load(scan).dataobj, np.float32)[None]
    save_comparison(
        tmp_path / "x.png",
        image,
        label,
        {"shifted": np.roll(label, 5, 0)},
        (0.625,) * 3,
        scores={"shifted": 0.9},
    )
    assert matplotlib.image.imread(tmp_path / "x.png").std() > 0.1
