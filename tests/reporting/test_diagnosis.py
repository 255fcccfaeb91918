"""The page of curves: which panels there are, and what their lines show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from semivox.errors import UserError
from semivox.reporting.diagnosis import save_diagnosis

HEAD = "iteration,measure,of,part,value\n"


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_ylabel(): axes for axes in figure.axes if axes.axison}


def rows(measure: str, of: str, part: str, *values: float | None) -> str:
    found = {10 * index: value for index, value in enumerate(values) if value is not None}
    return "".join(f"{iteration},{measure},{of},{part},{value}\n" for iteration, value in found.items())


def test_one_network_has_no_panels_of_pairs_and_masks(tmp_path: Path, drawn: list[Figure]) -> None:
    table = HEAD + rows("dice", "vnet", "liver", 0.2, 0.4, 0.6) + rows("dice", "vnet", "null", 0.4, 0.6, None)
    table += rows("ece", "vnet", "all", 0.3, 0.2, 0.1) + rows("gradient", "sup", "net", 2.0, 1.0)
    (tmp_path / "t.csv").write_text(table)
    save_diagnosis(tmp_path / "t.csv", title="x")
    assert list(panels(drawn[0])) == [
        "Dice (mean of classes)", "precision (mean of classes)", "recall (mean of classes)",
        "foreground: labeled / true", "calibration error (ECE)", "share that is correct",
        "gradient norm on net",
    ]  # fmt: skip
    (line,) = panels(drawn[0])["Dice (mean of classes)"].lines
    np.testing.assert_allclose(line.get_ydata(), [0.3, 0.5, 0.6])
    assert list(line.get_xdata()) == [0, 10, 20]
    (line,) = panels(drawn[0])["gradient norm on net"].lines
    np.testing.assert_allclose(line.get_ydata(), [2, 1, np.nan])
    assert (tmp_path / "t.png").stat().st_size > 10_000


def test_pairs_masks_and_the_last_reliability_are_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    table = HEAD + "".join(rows("dice", name, "liver", 0.1, 0.2) for name in ("a", "b", "cps_a", "reliable"))
    table += rows("agreement", "a-b", "liver", 0.7, 0.9) + rows("ece", "a", "all", 0.3, 0.2)
    for part in ("all", "background", "liver"):
        table += rows("share", "reliable", part, 0.5, 0.6) + rows("coverage", "reliable", part, 0.4, 0.3)
        table += rows("purity", "reliable", part, 0.8, None)
    for place, share, sure, right in (("09/15", 0.25, 0.58, 0.4), ("15/15", 0.75, 0.99, 0.9)):
        table += rows("bin_share", "a", place, 1.0, share) + rows("bin_confidence", "a", place, 0.5, sure)
        table += rows("bin_accuracy", "a", place, 0.5, right)
    table += rows("gradient", "sup_a", "net_a", 1.0) + rows("gradient", "sup_b", "net_b", 1.0)
    (tmp_path / "t.csv").write_text(table)
    save_diagnosis(tmp_path / "t.csv", "y", title="x")
    found = panels(drawn[0])
    assert {"Dice", "agreement of networks (Dice)", "purity: share that is correct"} <= set(found)
    assert {"gradient norm on net_a", "gradient norm on net_b"} <= set(found)
    dice = found["Dice"].lines
    assert dice[2].get_color() == dice[0].get_color() != dice[1].get_color()  # cps_a as a
    coverage = {line.get_label(): line for line in found["coverage: share of the true class"].lines}
    np.testing.assert_allclose(coverage["reliable, all voxels"].get_ydata(), [0.5, 0.6])
    np.testing.assert_allclose(coverage["reliable, liver"].get_ydata(), [0.4, 0.3])
    _, curve = found["share that is correct"].lines  # the first is the diagonal
    np.testing.assert_allclose(curve.get_xydata(), [[0.58, 0.4], [0.99, 0.9]])


@pytest.mark.parametrize(("volumes", "top"), [((9.0, 0.5), 3.0), ((9.0, 5.0), 6.0), ((0.0, 1.5), 1.575)])
def test_the_volume_panel_shows_the_end(
    tmp_path: Path, drawn: list[Figure], volumes: tuple[float, float], top: float
) -> None:
    (tmp_path / "t.csv").write_text(
        HEAD + rows("dice", "a", "x", 0.1, 0.2) + rows("volume", "a", "x", *volumes)
    )
    save_diagnosis(tmp_path / "t.csv", title="x")
    assert panels(drawn[0])["foreground: labeled / true"].get_ylim()[1] == pytest.approx(top)


@pytest.mark.parametrize("text", [None, "", HEAD, "a,b\n1,2\n"])
def test_a_table_without_findings_is_explained(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match="table of the diagnosis"):
        save_diagnosis(tmp_path / "t.csv", title="x")
