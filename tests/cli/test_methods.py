"""`semivox methods`, without torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from semivox.methods import METHODS


def run(*arguments: str) -> str:
    """Run in a process of its own, which must not load what is slow."""
    script = (
        "import sys\n"
        "from semivox.cli.app import app\n"
        f"app({list(arguments)!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'monai', 'lightning', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_names_every_method() -> None:
    shown = run("methods")
    assert all(name in shown for name in METHODS)


def test_one_method_with_its_options() -> None:
    shown = run("methods", "dual")
    assert "2 labeled, 2 unlabeled" in shown and "exclude_uncertain" in shown and "(xor | or)" in shown


@pytest.mark.parametrize("arguments", [("--json",), ("dual", "--json")])
def test_json(arguments: tuple[str, ...]) -> None:
    found = json.loads(run("methods", *arguments))
    assert {option["name"] for option in found["dual"]["options"]} >= {"tau", "alpha"}


def test_bibtex() -> None:
    assert run("methods", "--cite", "dual").startswith("@article{lu2025dual,\n")
