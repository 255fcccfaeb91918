"""Scripts that train with loader processes need no main guard, however processes are started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import semivox

TINY = {"iterations": 1}
REST = {"net": {"width": 2}, "plan": {"patch": (16, 16, 16)}, "split": {"labeled": 2}}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_script_without_a_guard_trains_once(method: str, phantoms: Path, tmp_path: Path) -> None:
    """The processes of the loaders do not run the script again, and change no weight."""
    config = {"train": {**TINY, "workers": 1}, **REST}
    (tmp_path / "script.py").write_text(
        "import multiprocessing, semivox\n"
        "print('begun')\n"
        f"multiprocessing.set_start_method({method!r})\n"
        f"semivox.train({str(phantoms)!r}, work='work', out='run', config={config!r})\n"
    )
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and done.stdout.count("begun") == 1, done.stderr
    config = {"train": {**TINY, "workers": 0}, **REST}
    inside = semivox.train(tmp_path / "work", out=tmp_path / "b", config=config)
    weights = [(run / "model.safetensors").read_bytes() for run in (tmp_path / "run", inside)]
    assert weights[0] == weights[1]
