"""The commands of the README and of the first page, typed on small phantoms, with few iterations."""

from __future__ import annotations

import re
import shlex
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from semivox import api
from shell import run

ROOT = Path(__file__).resolve().parents[2]
FIRST = ROOT / "docs" / "get-started" / "first-model.md"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = ("--iterations", "3", "--workers", "0", "--set", "net.width=2", "--set", "plan.patch=[32,16,16]")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "make_phantoms", partial(api.make_phantoms, shape=(40, 40, 32)))


def type_all(text: str) -> int:
    """Type the commands of all code blocks, each training with `TINY`; return their number."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [re.sub(r" --budget \S+", "", line) for block in blocks for line in block.splitlines()]
    commands = [
        shlex.split(line, comments=True) for line in lines if line.startswith(("semivox ", "python "))
    ]
    for program, *words in commands:
        if program == "python":
            exec(words[1], {"__name__": "__main__"})
            continue
        done = run(*words, *(TINY if words[0] == "train" else ()))
        assert done.exit_code == 0, (words, done.exception)
    return len(commands)


def test_the_first_page(tmp_path: Path) -> None:
    assert type_all(FIRST.read_text(encoding="utf-8")) == 8
    for name in ("segmentations/metrics.csv", "segmentations/summary.json", "runs/pseudo/pseudo/cases.png"):
        assert (tmp_path / name).is_file()


def test_the_readme(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "Heart")
    for label in sorted((tmp_path / "Heart" / "labelsTr").iterdir())[2:]:
        label.unlink()
    (tmp_path / "new_scans").symlink_to(phantoms / "imagesTs")
    assert type_all(README) == 3
    assert len(list((tmp_path / "segmentations").glob("*.nii.gz"))) == 2


def test_the_readme_in_python(phantoms: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    (tmp_path / "Heart").symlink_to(phantoms)
    (tmp_path / "new_scan.nii.gz").symlink_to(next((phantoms / "imagesTs").glob("*.nii.gz")))
    tiny = {"train": {"iterations": 2, "workers": 0}, "net": {"width": 2}, "plan": {"patch": [16, 16, 16]}}
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(block.replace("labeled=8", f"labeled=2, config={tiny}"), found)
    assert found["prediction"].probs.shape == (3, *found["prediction"].label.shape)
