"""Commands typed in this process: without the seconds that a new one takes to import."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from semivox.cli.app import app


def run(*words: object, **options: str) -> Result:
    """Type `semivox WORDS`; `options` are environment variables."""
    return CliRunner().invoke(app, [*map(str, words)], env=options)


def passes(*words: object) -> str:
    """Return what the command prints; raise what it raises."""
    done = run(*words)
    if done.exception is not None:
        raise done.exception
    return done.output
