"""The scripts in `examples/` run, here on small phantoms."""

from __future__ import annotations

import runpy
import sys
from functools import partial
from pathlib import Path

import pytest

from semivox import api

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.stem)
def test_it_runs(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "make_phantoms", partial(api.make_phantoms, shape=(40, 40, 32)))
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "2"])
    runpy.run_path(str(script), run_name="__main__")
    assert "dice" in capsys.readouterr().out.lower()
