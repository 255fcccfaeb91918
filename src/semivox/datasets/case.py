"""A case: its files, the names that it may have, and what messages say of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, PlainSerializer

from semivox.errors import UserError, shortened

Pool = Literal["train", "test", "extra"]
File = Annotated[Path, PlainSerializer(Path.as_posix)]

_LONGEST = 200  # bytes of a case's name: outputs add a channel, an ending and a temporary prefix


class Notice(UserError):  # noqa: N818
    """A warning in the form of an error: something to tell that stops nothing."""


@dataclass(frozen=True)
class Case:
    """One scan."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str  # unique in its data set
    images: tuple[File, ...]  # one file a channel, or one file with all channels
    label: File | None  # None where there is no label file
    pool: Pool  # a train case without label file is unlabeled, and so is every extra case


def missing_image(case: str, path: Path, channel: str | None) -> UserError:
    """Return the error for an image file that is declared or implied but not there."""
    what = f"Case {case}: the image{f' of channel {channel}' if channel else ''} is missing"
    return UserError(what, "no such file", None, "add the file, or remove the case", path)


def name_problem(name: str) -> str | None:
    """Say why a case's name cannot become part of a file name; None if it can."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "bytes that are no UTF-8 text"
    if not name or "/" in name or name.startswith(".") or any(ord(letter) < 32 for letter in name):
        return "an empty name, a leading dot, / or a control character"
    return f"{size} bytes, at most {_LONGEST} leave room for endings" if size > _LONGEST else None


def name_errors(names: Sequence[str], path: Path) -> Iterator[UserError]:
    """Name cases whose name another one has, too, or that cannot become part of a file name."""
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        what, do = "Two cases have the same name", "rename the files of one of them"
        yield UserError(what, shortened(twice, 5), "names that are unique over all pools", do, path)
    for name in names:
        if (why := name_problem(name)) is not None:
            what = "A case has a name that cannot be a file name"
            yield UserError(what, f"{name}: {why}", None, "rename its files", path)


def printable(name: str) -> str:
    """Return a name that any terminal can show."""
    return name.encode("utf-8", "backslashreplace").decode()
