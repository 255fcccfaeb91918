"""Scripts that train with loader processes, with and without a main guard."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import semivox

TINY = (
    "{'train': {'iterations': 1, 'workers': %d}, 'net': {'width': 2}, 'plan': {'patch': [16, 16, 16]},"
    " 'split': {'labeled': 2}}"
)
GUARD = 'if __name__ == "__main__":\n    '
NO_GUARD, NO_FOLDER = "has no main guard", "There is no such folder"


def script(folder: Path, text: str, *before: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(f"import semivox\n{text}\n")
    command = [sys.executable, *before, "script.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("semivox.train('none')", NO_GUARD),
        ("def main():\n    semivox.train('none')\n\nmain()", NO_GUARD),
        ("if True:\n    semivox.train('none')", NO_GUARD),
        ("semivox.benchmark('.', {'methods': ['dual']}, out='out')", NO_GUARD),
        ("semivox.demo('out', config={'net': {'width': 2}})", NO_GUARD),
        (f"{GUARD}semivox.train('none')", NO_FOLDER),
        (f"def main():\n    semivox.train('none')\n\n{GUARD}main()", NO_FOLDER),
        ("if '__main__' == __name__ and 1:\n    semivox.train(\n        'none',\n    )", NO_FOLDER),
        ("semivox.train('none', config={'train': {'workers': 0}})", NO_FOLDER),
        ("semivox.prepare('none')", NO_FOLDER),
    ],
)
def test_loader_processes_need_a_main_guard(text: str, said: str, tmp_path: Path) -> None:
    done = script(tmp_path, text)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert (NO_GUARD in done.stderr) == ('`if __name__ == "__main__":`' in done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize("how", [("-m", "script"), ("-c", "import script"), ("-m", "pdb", "-c", "c")])
def test_what_is_no_script_needs_none(how: tuple[str, ...], tmp_path: Path) -> None:
    """Neither a module, nor an import, nor what a debugger runs."""
    done = script(tmp_path, "semivox.train('none')", *how)
    assert NO_FOLDER in done.stdout + done.stderr


def test_a_script_with_a_guard_works(phantoms: Path, tmp_path: Path) -> None:
    """Also what stands outside of it, as long as it does not train; the processes change no weight."""
    folder = str(phantoms)
    text = f"semivox.prepare({folder!r}, work='work', workers=2, config={TINY % 0})\n"
    done = script(tmp_path, f"{text}{GUARD}semivox.train('work', out='a', config={TINY % 1})")
    assert done.returncode == 0, done.stderr
    inside = semivox.train(tmp_path / "work", out=tmp_path / "b", config=ast.literal_eval(TINY % 0))
    weights = [(run / "model.safetensors").read_bytes() for run in (tmp_path / "a", inside)]
    assert weights[0] == weights[1]
