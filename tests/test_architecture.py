"""The house of design.md: imports point downwards, files stay small, only the engine knows Lightning."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "semivox"
FILES = sorted(SOURCE.rglob("*.py"))

# A room may import rooms of a lower number, and itself; rooms of one number do not know each other.
TIER = {
    "version": 0, "errors": 0, "files": 1, "config": 2, "hardware": 2, "heap": 2, "run": 3,
    "ops": 4, "data": 5, "nets": 5, "methods": 6,
    "engine": 7, "inference": 7, "scoring": 7, "reporting": 7,
    "verbs": 8, "cli": 9, "__init__": 10, "__main__": 11,
}  # fmt: skip
FORBIDDEN = {
    "ops": {"data", "config", "run", "files"},
    "nets": {"data"},
    "methods": {"data"},
    "data": {"ops", "nets", "methods"},
}
ONLY_IN = {"lightning": {"engine"}, "typer": {"cli"}, "matplotlib": {"reporting"}}


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_downwards(file: Path) -> None:
    room = room_of(file)
    for module in imported_modules(file):
        package, _, rest = module.partition(".")
        if package != "semivox":
            assert room in ONLY_IN.get(package, {room}), f"{package} belongs to {ONLY_IN[package]}"
            continue
        other = rest.partition(".")[0] or "__init__"
        if other == room:
            continue
        assert TIER[other] < TIER[room], f"{room} imports {other}, which is not below it"
        assert other not in FORBIDDEN.get(room, set()), f"{room} must not know {other}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300


def test_every_room_has_a_tier() -> None:
    assert {room_of(file) for file in FILES} <= set(TIER)
