"""Letters in the names of cases, whatever the language."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from semivox.reporting import style


@pytest.fixture
def only_a_block(tmp_path: Path) -> str:
    """A font with a black square for one letter, and nothing else."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    block, name = pen.glyph(), "A font for tests"
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "middle"])
    font.setupCharacterMap({ord("中"): "middle"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "middle": block})
    font.setupHorizontalMetrics(dict.fromkeys((".notdef", "middle"), (1000, 0)))
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "font.ttf")
    return name


def drawn(text: str) -> np.ndarray:
    figure = Figure(figsize=(2, 1), facecolor="white")
    figure.text(0.1, 0.3, text, fontsize=20)
    return np.asarray(Image.open(io.BytesIO(style.encoded(figure, "png"))).convert("L"))


def test_letters_that_the_usual_font_lacks_come_from_another(
    only_a_block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match="Glyph 20013"):
        drawn("case 中")
    latin, known = drawn("case 7"), list(fontManager.ttflist)
    monkeypatch.setattr(fontManager, "ttflist", known)
    fontManager.addfont(tmp_path / "font.ttf")
    monkeypatch.setattr(style, "FALLBACK_FONTS", ("not installed", only_a_block))
    style.font_families.cache_clear()
    try:
        assert (drawn("case 中") < 50).sum() > 600  # 20 points at 100 dpi: a square of 28 pixels
        np.testing.assert_array_equal(drawn("case 7"), latin)
    finally:
        style.font_families.cache_clear()
