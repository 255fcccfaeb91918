"""The one exception that users see: what was found, what was expected, what to do."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """A problem that the user can fix; the command line prints it without a traceback and exits with 2.

    Args:
        what: the problem in one short sentence, without a final full stop.
        found: what was found (a value, a shape, a list of names).
        expected: what would have been right.
        do: what to do about it, if possible the very command to type.
        path: the file or folder concerned, if there is one.
    """

    def __init__(
        self,
        what: str,
        *,
        found: object = None,
        expected: object = None,
        do: str | None = None,
        path: Path | str | None = None,
    ) -> None:
        self.what, self.found, self.expected, self.do, self.path = what, found, expected, do, path
        super().__init__(self._text())

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way from a worker process (keyword-only arguments do not by themselves)."""
        return _rebuild, (self.what, self.found, self.expected, self.do, self.path)

    def _text(self) -> str:
        lines = [self.what]
        for name, value in (
            ("file", self.path),
            ("found", self.found),
            ("expected", self.expected),
            ("do", self.do),
        ):
            if value is not None:
                lines.append(f"  {name + ':':<10}{value}")
        return "\n".join(lines)


def _rebuild(
    what: str, found: object, expected: object, do: str | None, path: Path | str | None
) -> UserError:
    return UserError(what, found=found, expected=expected, do=do, path=path)
