"""Every command line in the documentation names commands, options, settings and scripts that exist."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from semivox.cli.app import app
from semivox.config import Config

ROOT = Path(__file__).resolve().parents[2]
FILES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
PAGES = [page for page in sorted(FILES) if page.name != "CHANGELOG.md"]


def typed(page: Path, program: str) -> list[list[str]]:
    """Split the command lines that begin with the program, in blocks and in inline code."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in block.splitlines()] + inline
    found = [re.fullmatch(rf"(?:[A-Z_]+=\S+ )*{program} (.+)", line.strip()) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Walk to the subcommand; return it with the words that are left."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def options_of(command: Any) -> set[str]:
    return {"--help"} | {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def test_options_of_the_benchmark_page_exist() -> None:
    """Also those that stand alone, without a command."""
    text = (ROOT / "docs" / "how-to" / "benchmark.md").read_text(encoding="utf-8")
    used = set(re.findall(r"`(--?[a-z-]+)", text))
    assert len(used) >= 7 and used <= options_of(command_of(["benchmark"])[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    for words in typed(page, "semivox"):
        if words[0].isupper():  # `semivox COMMAND --help`
            continue
        command, rest = command_of(words)
        used = {word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
        assert used <= options_of(command), " ".join(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page: Path) -> None:
    for words in typed(page, "semivox"):
        settings = [value for word, value in pairwise(words) if word == "--set"]
        for name in (setting.partition("=")[0].split(".") for setting in settings if "=" in setting):
            section = Config.model_fields[name[0]].annotation
            assert name[1] in section.model_fields, ".".join(name)  # type: ignore[union-attr]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_and_their_options_exist(page: Path) -> None:
    for words in typed(page, "(?:.venv/bin/)?python"):
        if words[0].endswith(".py"):
            source = (ROOT / words[0]).read_text(encoding="utf-8")
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in source, f"{words[0]} has no {option}"
