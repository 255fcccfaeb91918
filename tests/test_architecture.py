"""The house: imports point downwards, no circle between files, small files, few files in a room."""

from __future__ import annotations

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "semivox"
FILES = sorted(SOURCE.rglob("*.py"))

# A file may import from its own room and from rooms below it.
ROOMS = (
    "__main__", "cli", "__init__", "api", "serving", "benchmark", "reporting", "export", "evaluation",
    "training", "inference", "methods", "nets", "losses", "patches", "preprocessing", "datasets", "io",
    "run", "manifest", "config", "settings", "hardware", "progress", "files", "errors", "version",
)  # fmt: skip
MOST_FILES, MOST_LINES = 12, 300
# Mathematics never sees files, and what reads files never sees networks.
FORBIDDEN = {
    "losses": {"config", "run", "files", "patches", "preprocessing", "datasets", "io"},
    "nets": {"patches", "preprocessing", "datasets", "io", "files"},
    "methods": {"patches", "preprocessing", "datasets", "io", "hardware"},
}
ONLY_IN = {"lightning": {"training"}, "typer": {"cli"}, "matplotlib": {"reporting"}}


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def name_of(file: Path) -> str:
    parts = ["semivox", *file.relative_to(SOURCE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(file): file for file in FILES}


def imported_modules(file: Path) -> set[str]:
    """Every module that the file imports, also inside functions; for typing alone, too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & NAMES.keys()) or {node.module or ""}
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
        assert ROOMS.index(other) > ROOMS.index(room), f"{room} imports {module}, which is not below it"
        assert other not in FORBIDDEN.get(room, set()), f"{room} must not know {other}"


def test_no_circle_between_files() -> None:
    graph = {
        name: {m for m in imported_modules(file) if m in NAMES and m != name} for name, file in NAMES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_rooms_stay_small() -> None:
    """A file a method is the rule in `methods`, so that room may hold more."""
    counts = Counter(file.parent.relative_to(SOURCE) for file in FILES if file.name != "__init__.py")
    large = {
        str(room): n for room, n in counts.items() if n > MOST_FILES and str(room) not in {"methods", "."}
    }
    assert not large


def test_every_file_has_a_room() -> None:
    assert {room_of(file) for file in FILES} <= set(ROOMS)
