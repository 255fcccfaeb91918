"""The picture of a case: content, geometry, orientation, legibility, speed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from semivox.reporting import style
from semivox.reporting.page import charts
from semivox.reporting.planes import save_overlay
from semivox.reporting.slices import AXIAL, VIEWS, finest_view, fullest_slice, turned
from semivox.reporting.style import CLASS_COLORS

Capture = Callable[[], Figure]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Capture:
    """The figure that was saved last."""
    figures: list[Figure] = []
    monkeypatch.setattr(style, "save_png", lambda figure, path: figures.append(figure))
    return lambda: figures[-1]


def scan(shape: tuple[int, int, int] = (40, 50, 30)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.zeros(shape, np.uint8)
    label[5:12, 30:42, 3:9] = 1
    label[12:15, 30:42, 3:9] = 2
    return rng.normal(size=(1, *shape)).astype(np.float32), label


def has_color(path: Path, color: str) -> bool:
    pixels = matplotlib.image.imread(path)[..., :3]
    return bool((np.abs(pixels - to_rgb(color)).max(axis=-1) < 0.02).any())


def words(figure: Figure) -> str:
    legends = [entry for legend in figure.legends for entry in legend.get_texts()]
    return " ".join(text.get_text() for text in [*figure.texts, *legends])


def test_labeled_case_shows_outlines_and_unlabeled_none(tmp_path: Path) -> None:
    image, label = scan()
    save_overlay(tmp_path / "labeled.png", image, label, (1, 1, 1), class_names=("bg", "a", "b"), name="x")
    save_overlay(tmp_path / "unlabeled.png", image, None, (1, 1, 1), name="x")
    for color in CLASS_COLORS[:2]:
        assert has_color(tmp_path / "labeled.png", color)
        assert not has_color(tmp_path / "unlabeled.png", color)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labeled.png", "unlabeled.png"]


def test_header_says_what_is_shown(drawn: Capture) -> None:
    image, label = scan()
    save_overlay(
        Path("x.png"), image, label, (0.5, 0.5, 2), name="case_7", class_names=("bg", "head", "tail")
    )
    for text in ("case_7", "40 × 50 × 30 voxels", "0.5 × 0.5 × 2 mm", "labeled", "head", "tail"):
        assert text in words(drawn())
    save_overlay(Path("x.png"), image, None, (1, 1, 1), name="case_8")
    assert "case_8" in words(drawn()) and "unlabeled" in words(drawn())
    save_overlay(Path("x.png"), image, label * 0, (1, 1, 1), name="x")
    assert "no foreground in the label" in words(drawn())


def test_dollars_in_names_are_no_formula(tmp_path: Path) -> None:
    image, label = scan()
    names = ("bg", "cost $5 to $6_a^", r"$\frac$")
    save_overlay(tmp_path / "x.png", image, label, (1, 1, 1), class_names=names, name="a$b_{$c")
    assert (tmp_path / "x.png").is_file()
    means = pd.DataFrame({"mean": 0.1, "low": 0.0, "high": 0.2}, index=["a$b_{$c"])
    assert "a$b_{$c" in charts.difference_chart(means, "x$y_{$").svg


def test_each_slice_is_the_one_with_most_foreground(drawn: Capture) -> None:
    image, label = scan((60, 20, 20))
    label[:] = 0
    label[2:5, 2:5, 2:5] = label[50:58, 10:15, 10:14] = 1
    label[55, 10:18, 8:18] = 2
    save_overlay(Path("x.png"), image, label, (1, 1, 1), name="x")
    captions = [panel.get_title() for panel in drawn().axes]
    z, y, x = (int(caption.split()[-1]) - 1 for caption in captions)
    assert (x, y, z) == (55, 10, 10)
    assert [fullest_slice(label, view) for view in VIEWS] == [z, y, x]
    assert fullest_slice(label[..., :10] * 0, AXIAL) == 5


@pytest.mark.parametrize(
    ("spacing", "name"),
    [((1, 1, 1), "axial"), ((1, 1, 5), "axial"), ((1.4, 8, 1.4), "coronal"), ((10, 1, 1), "sagittal"),
     ((1, 1, 0.9), "axial")],
)  # fmt: skip
def test_the_plane_with_the_finest_pixels_comes_first(
    spacing: tuple[float, float, float], name: str, drawn: Capture
) -> None:
    image, label = scan()
    assert finest_view(spacing).name == name
    save_overlay(Path("x.png"), image, label, spacing, name="x")
    assert drawn().axes[0].get_title().split(",")[0] == name


def test_all_panels_have_one_scale(drawn: Capture) -> None:
    image, label = scan((40, 50, 30))
    save_overlay(Path("x.png"), image, label, (1.0, 0.9, 3.0), name="x")
    figure = drawn()
    sizes = [panel.get_position().size * figure.get_size_inches() for panel in figure.axes]
    for size, mm in zip(sizes, ((40, 45), (40, 90), (45, 90)), strict=True):
        np.testing.assert_allclose(size / mm, sizes[0][0] / 40, rtol=1e-6)
    for panel in figure.axes:
        assert panel.get_xlim()[1] == pytest.approx(
            panel.get_position().width * figure.get_figwidth() / sizes[0][0] * 40
        )


def test_right_is_left_and_front_and_head_are_up(drawn: Capture) -> None:
    image, _ = scan((10, 12, 14))
    image[0, 9, 11, :] = image[0, 9, :, 13] = image[0, :, 11, 13] = 100  # right front, right head, front head
    save_overlay(Path("x.png"), image, None, (1, 1, 1), name="x")
    for panel in drawn().axes:
        pixels = np.asarray(panel.images[0].get_array())
        assert panel.images[0].origin == "lower"
        assert pixels[-1, 0] == 100  # top left
        assert pixels[0, -1] < 100
    letters = [[text.get_text() for text in panel.texts] for panel in drawn().axes]
    assert letters == [list("RLAP"), list("RLSI"), list("APSI")]


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SAL"])
def test_orientation_of_the_array_does_not_matter(axes: str) -> None:
    image, label = scan((12, 16, 10))
    label[3:6, 4:9, 2:5] = 1
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axes))
    )
    stored = [nib.orientations.apply_orientation(array, turn) for array in (image[0], label)]
    spacing = np.array([1.0, 2.0, 3.0])
    there = [spacing[["RL", "AP", "SI"].index(next(p for p in ("RL", "AP", "SI") if c in p))] for c in axes]
    made, found, nothing = turned(stored[0], there, axes, stored[1], None)
    np.testing.assert_array_equal(made.image, image[0])
    np.testing.assert_array_equal(made.spacing, spacing)
    np.testing.assert_array_equal(found, label)
    assert nothing is None


@pytest.mark.parametrize("shape", [(40, 50, 30), (20, 20, 300), (300, 20, 20), (60, 60, 5)])
def test_nothing_overlaps(
    shape: tuple[int, int, int], drawn: Capture, overlaps: Callable[[Figure], list[str]]
) -> None:
    label = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8) % 12
    names = ["background", *(f"a structure with a long name {index}" for index in range(11))]
    image = np.zeros((1, *shape), np.float32)
    save_overlay(Path("x.png"), image, label, (0.6251, 0.6251, 4.001), class_names=names, name="case " * 40)
    assert not overlaps(drawn())
    assert all(name[-10:] in words(drawn()) for name in names[1:])


def test_fit_for_worker_processes(tmp_path: Path) -> None:
    image, label = scan((180, 140, 90))
    again = pickle.loads(pickle.dumps(save_overlay))
    again(tmp_path / "case.png", image, label, (1, 1, 1), name="x")
    assert (tmp_path / "case.png").stat().st_size > 10_000


@pytest.mark.real
def test_real_hippocampus(real_data: Path, tmp_path: Path) -> None:
    folder, name = real_data / "hippocampus", "hippocampus_001.nii.gz"
    image, label = (nib.load(folder / sub / name) for sub in ("imagesTr", "labelsTr"))
    axes = "".join(nib.aff2axcodes(image.affine))
    arrays = np.asarray(image.dataobj), np.asarray(label.dataobj).astype(np.uint8)
    made, classes = turned(arrays[0], (1, 1, 1), axes, arrays[1])
    save_overlay(tmp_path / "x.png", made.image[None], classes, (1, 1, 1), name="x")
    assert has_color(tmp_path / "x.png", CLASS_COLORS[0]) and has_color(tmp_path / "x.png", CLASS_COLORS[1])
