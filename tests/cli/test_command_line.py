"""The command itself, as a user's shell runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from semivox.cli.app import app
from semivox.cli.options import seconds, settings_from
from semivox.errors import UserError

COMMANDS = (
    "import",
    "fetch",
    "info",
    "check",
    "plan",
    "prepare",
    "train",
    "predict",
    "evaluate",
    "demo",
    "benchmark",
    "methods",
)


def semivox(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "semivox", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=120)


HEAVY = (
    *("torch", "monai", "lightning", "numpy", "scipy", "pandas", "matplotlib", "nibabel", "SimpleITK"),
    *("h5py", "blosc2", "pydicom", "highdicom", "tensorboard", "safetensors"),
)
ANSWERED_AT_ONCE = [
    ["--help"],
    *([name, "--help"] for name in COMMANDS),
    *(["methods", *more] for more in ([], ["dual"], ["--cite", "dual"], ["--json"])),
]


@pytest.mark.parametrize("command", ANSWERED_AT_ONCE, ids=" ".join)
def test_an_answer_that_needs_no_scan_imports_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys\n"
        "from semivox.cli.app import app\n"
        f"app({command!r}, standalone_mode=False)\n"
        f"heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 200
    assert ("Usage" in done.stdout) == ("--help" in command)


def test_a_missing_folder_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    done = semivox("train", "-d", tmp_path / "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = semivox("--debug", "train", "-d", tmp_path / "nowhere", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_mistyped_setting_is_one_message(tmp_path: Path) -> None:
    done = semivox("train", "-d", tmp_path, "--set", "train.iteratons=5", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean iterations?" in done.stderr


def test_from_import_to_scores(phantoms: Path, tmp_path: Path) -> None:
    """Each command, typed as the one before suggests."""
    work, run, out = tmp_path / "work", tmp_path / "run", tmp_path / "out"
    narrow = ("--set", "net.width=2", "--set", "train.workers=0", "--set", "plan.patch=[16,16,16]")
    assert "6 training cases (6 with a label file)" in _passes(semivox("import", phantoms, "-o", work)).stdout
    _passes(semivox("prepare", "-d", work, "--labeled", 2, "--workers", 0, *narrow))
    _passes(semivox("train", "-d", work, "-m", "supervised", "--iterations", 2, "-o", run, *narrow))
    _passes(semivox("predict", "-m", run, "-i", phantoms / "imagesTs", "-o", out, "--save-probabilities"))
    assert len(list(out.glob("*.npz"))) == 2
    scores = _passes(semivox("evaluate", "-i", out, "-d", phantoms, "--workers", 0))
    assert "Dice" in scores.stdout
    again = semivox("predict", "-m", run, "-i", phantoms / "imagesTs", "-o", out, "--overlap", 0.25)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def _passes(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def test_info_and_check_speak_json_and_exit_codes(phantoms: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--workers", "0"])

    folder = Path(shutil.copytree(phantoms, tmp_path / "data"))
    found = json.loads(run("info", folder, "--json", "--labeled", 2).stdout)
    assert len(found["cases"]) == 6 and len(found["summary"]["labeled_cases"]) == 2
    shown = run("info", folder, "--figure", tmp_path / "a.png")
    assert shown.exit_code == 0 and (tmp_path / "a.png").is_file()
    assert "class volumes in mL, 6 labeled cases" in shown.stdout
    sound = run("check", folder)
    assert sound.exit_code == 0
    assert "8 cases, 0 errors" in sound.stdout and "next: semivox prepare" in sound.stdout
    broken = next((folder / "imagesTr").iterdir())
    broken.write_bytes(broken.read_bytes()[:-9])
    as_json = run("check", folder, "--json")
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["errors"] == 1
    bad = semivox("check", folder, "--workers", 0)
    assert bad.returncode == 1
    assert broken.name in bad.stdout and "ends too early" in bad.stdout and "1 error" in bad.stdout


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("20", 1200)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "0m", "-5m", "5d"])
def test_bad_times(text: str) -> None:
    with pytest.raises(UserError, match="Unknown time"):
        seconds(text)


def test_labeled_is_a_number_or_a_fraction() -> None:
    assert settings_from(None, None, None, labeled=8.0).split.labeled == 8
    assert settings_from(None, None, None, labeled=0.1).split.labeled == 0.1
