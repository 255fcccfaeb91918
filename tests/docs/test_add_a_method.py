"""The how-to page about methods, followed to the letter in a package outside semivox."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from shell import passes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-method.md"


def block(language: str) -> str:
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} block in {PAGE}"
    return found[1]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the module and what `pip install` would write about its entry point into a folder on the path."""
    place = tmp_path / "site"
    project = tomllib.loads(block("toml"))["project"]
    metadata = place / f"my_methods-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (place / "my_methods.py").write_text(block("python"), encoding="utf-8")
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    points = [
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in points.items())
        for group, points in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    monkeypatch.syspath_prepend(place)
    yield
    sys.modules.pop("my_methods", None)


def test_the_three_steps(installed: None, phantoms: Path, tmp_path: Path) -> None:
    assert "agree" in passes("methods")
    shown = passes("methods", "agree")
    assert "to agree on unlabeled patches" in shown and "weight" in shown
    where = ("-d", phantoms, "--work", tmp_path / "work", "-o", tmp_path / "run", "--labeled", 2)
    how = ("--method", "agree", "--iterations", 2, "--precision", 32)
    narrow = ("net.width=2", "train.workers=0", "plan.patch=[16,16,16]", "method.options.weight=0.2")
    passes("train", *where, *how, *(part for setting in narrow for part in ("--set", setting)))
    log = (tmp_path / "run" / "logs" / "metrics.csv").read_text(encoding="utf-8")
    assert "agree" in log.splitlines()[0]
    passes("predict", "-m", tmp_path / "run", "-i", phantoms / "imagesTs", "-o", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
