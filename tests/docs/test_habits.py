"""What several files of the repository say twice, they say alike."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from semivox.version import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return {key.lower(): version for key, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def numbers(version: str) -> tuple[int, ...]:
    """Compare 2.8 and 2.8.0 as equal."""
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (4 - len(parts)))


def test_the_floor_is_what_the_package_allows() -> None:
    floor = pins("constraints-floor.txt")
    lowest = {}
    for requirement in PROJECT["project"]["dependencies"] + EXTRAS["dicom"]:
        name, version = re.match(r"([\w.-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        lowest[name.lower()] = version
    assert {name: numbers(version) for name, version in floor.items()} == {
        name: numbers(version) for name, version in lowest.items()
    }


def test_the_linters_are_the_same_everywhere() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    asked = {need for hook in hooks for need in hook.get("additional_dependencies", [])}
    assert asked == {f"ruff=={pins('constraints.txt')['ruff']}"}


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == __version__
    assert f"[{__version__}]" in changes


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda file: file.name)
def test_workflows_call_what_exists(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    yaml.safe_load(text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"-c (\S+\.txt)", text):
        assert (ROOT / name).is_file(), name


def test_the_site_shows_every_page() -> None:
    site = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    generated = {page for page in pages if page.startswith("reference/methods/") and "index" not in page}
    assert set(re.findall(r'"([\w/-]+\.md)"', site)) == pages - generated
