"""The commands of the README and of the first page, typed on phantoms, with few iterations."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST = ROOT / "docs" / "get-started" / "first-model.md"


def commands(page: Path) -> list[list[str]]:
    """Read the commands of all code blocks; a budget becomes three iterations."""
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines = [re.sub(r"--budget \S+", "--iterations 3", line) for line in lines]
    split = [shlex.split(line, comments=True) for line in lines if line.startswith(("semivox ", "python "))]
    programs = {"semivox": [sys.executable, "-m", "semivox"], "python": [sys.executable]}
    return [[*programs[words[0]], *words[1:]] for words in split]


def run_all(page: Path, folder: Path, *training: str) -> None:
    """Run the commands in the folder, with these options after each `train`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in commands(page):
        tiny = [*command, *training] if "train" in command else command
        if "train" in command and "--iterations" not in command:
            tiny += ["--iterations", "3"]
        done = subprocess.run(
            tiny, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, (command, done.stderr)


def test_the_first_page(tmp_path: Path) -> None:
    assert len(commands(FIRST)) == 8
    run_all(FIRST, tmp_path)
    for name in ("segmentations/metrics.csv", "segmentations/summary.json", "runs/control/model.safetensors"):
        assert (tmp_path / name).is_file()


def test_the_readme(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms, tmp_path / "Heart")
    for label in sorted((tmp_path / "Heart" / "labelsTr").iterdir())[2:]:
        label.unlink()
    (tmp_path / "new_scans").symlink_to(phantoms / "imagesTs")
    assert len(commands(ROOT / "README.md")) == 3
    run_all(
        ROOT / "README.md",
        tmp_path,
        "--workers",
        "0",
        "--set",
        "net.width=2",
        "--set",
        "plan.patch=[32,16,16]",
    )
    assert len(list((tmp_path / "segmentations").glob("*.nii.gz"))) == 2


def test_the_readme_in_python(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Heart").symlink_to(phantoms)
    (tmp_path / "new_scan.nii.gz").symlink_to(next((phantoms / "imagesTs").glob("*.nii.gz")))
    tiny = {"train": {"iterations": 2, "workers": 0}, "net": {"width": 2}, "plan": {"patch": [16, 16, 16]}}
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(block.replace("labeled=8", f"labeled=2, config={tiny}"), found)
    assert found["prediction"].probs.shape == (3, *found["prediction"].label.shape)
