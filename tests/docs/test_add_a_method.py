"""The how-to page about methods, followed to the letter in a package outside semivox."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "add-a-method.md"
SOURCE = Path(__file__).resolve().parents[2] / "src"


def block(language: str) -> str:
    found = re.search(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found, f"no {language} block in {PAGE}"
    return found[1]


def install(place: Path) -> dict[str, str]:
    """Put the module and what `pip install` would write about its entry point into a folder on the path."""
    (place / "my_methods.py").write_text(block("python"), encoding="utf-8")
    project = tomllib.loads(block("toml"))["project"]
    metadata = place / f"my_methods-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    points = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items())
              for group, points in project["entry-points"].items()]  # fmt: skip
    (metadata / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(SOURCE)]), "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *arguments: object) -> str:
    command = [sys.executable, "-m", "semivox", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_three_steps(phantoms: Path, tmp_path: Path) -> None:
    environment = install(tmp_path)
    assert "agree" in run(environment, "methods")
    shown = run(environment, "methods", "agree")
    assert "to agree on unlabeled patches" in shown and "weight" in shown
    where = ("-d", phantoms, "--work", tmp_path / "work", "-o", tmp_path / "run", "--labeled", 2)
    how = ("--method", "agree", "--iterations", 10, "--precision", 32)
    narrow = ("net.width=2", "train.workers=0", "plan.patch=[16,16,16]", "method.options.weight=0.2")
    run(environment, "train", *where, *how, *(part for setting in narrow for part in ("--set", setting)))
    log = (tmp_path / "run" / "logs" / "metrics.csv").read_text(encoding="utf-8")
    assert "agree" in log.splitlines()[0]
    run(environment, "predict", "-m", tmp_path / "run", "-i", phantoms / "imagesTs", "-o", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
