"""The one exception that users see: what was found, what was expected, what to do; and what becomes one."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # as in semivox/__init__.py
if TYPE_CHECKING:  # the command line reads this file before it can answer signals: it has to be quick
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_SHOWN = 20  # known names listed in a message
_AGAIN = "free some space, then run the same command again: it resumes where it stopped"
_SYSTEM = {
    errno.ENOSPC: ("The disk is full", _AGAIN),
    errno.EDQUOT: ("The disk quota is used up", _AGAIN),
    errno.EACCES: ("Access is denied", "choose another path, or change the permissions"),
    errno.EPERM: ("Access is denied", "choose another path, or change the permissions"),
    errno.EROFS: ("The file system is read-only", "choose another path"),
    errno.ENOENT: ("There is no such file or folder", "check the path"),
    errno.ENOTDIR: ("A path leads through a file", "choose another path"),
    errno.EEXIST: ("A file stands where a folder is needed", "choose another path"),
    errno.EISDIR: ("A folder stands where a file is needed", "choose another path"),
    errno.ENAMETOOLONG: ("A file name is too long", "choose a shorter name"),
    errno.ELOOP: ("A link points to itself", "remove the link"),
    errno.EMFILE: ("Too many files are open", "use fewer --workers, or raise the limit (ulimit -n)"),
    errno.ENOMEM: ("Memory ran out", "use fewer --workers, or a machine with more memory"),
    errno.EIO: ("The disk reports an error", "check the disk"),
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised like Ctrl-C so that every `finally` runs and the state is saved."""


class UserError(Exception):
    """A problem that the user can fix; the command line prints it without a traceback and exits with 2.

    All arguments but the first may be left out; write them by position where that keeps the call short.

    Args:
        what: the problem in one short sentence, without a final full stop.
        found: what was found (a value, a shape, a list of names).
        expected: what would have been right.
        do: what to do about it, if possible the very command to type.
        path: the file or folder concerned, if there is one.

    Example:
        >>> print(UserError("There is no fold 7", "5 folds", "0 to 4", path="splits.json"))
        There is no fold 7
          file:     splits.json
          found:    5 folds
          expected: 0 to 4
    """

    def __init__(
        self,
        what: str,
        found: object = None,
        expected: object = None,
        do: str | None = None,
        path: Path | str | None = None,
    ) -> None:
        self.what, self.found, self.expected, self.do, self.path = what, found, expected, do, path
        lines = (("file", path), ("found", found), ("expected", expected), ("do", do))
        text = [f"  {name + ':':<10}{value}" for name, value in lines if value is not None]
        text = [one.replace("\n", "\n" + " " * 12) for one in text]
        shown = "\n".join([what, *text])  # names on disk may hold bytes that no terminal can show
        super().__init__(shown.encode("utf-8", "backslashreplace").decode())

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle all five parts, so that the error survives the way from a worker process."""
        return type(self), (self.what, self.found, self.expected, self.do, self.path)


def unknown(kind: str, name: object, known: Iterable[object], path: Path | str | None = None) -> UserError:
    """Return the error for a name that does not exist; it suggests the most similar known one.

    Example:
        >>> print(unknown("method", "duall", ["dual", "bcp"]))
        Unknown method: duall
          found:    duall
          expected: one of dual, bcp
          do:       did you mean dual?
    """
    names = [str(one) for one in known]
    closest = nearest(name, names)
    do = "choose one of these" if closest is None else f"did you mean {closest}?"
    return UserError(f"Unknown {kind}: {name}", str(name), f"one of {shortened(names)}", do, path)


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to `name`; None if none is."""
    from difflib import get_close_matches

    by_lower, wanted = {one.lower(): one for one in known}, str(name).lower()
    begun = [one for one in by_lower if len(wanted) > 2 and one.startswith(wanted)]
    matches = begun or get_close_matches(wanted, by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def shortened(names: Iterable[object], most: int = _SHOWN) -> str:
    """Join names with commas; of more than `most`, show the first ones and the number of the others.

    Example:
        >>> shortened("abcde", most=3)
        'a, b, c and 2 more'
    """
    shown = [str(name) for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")


def listed(failed: Mapping[str, UserError]) -> str:
    """Return a line for each case that failed: its name, what is wrong, what was found, and the file."""
    lines = []
    for case, error in failed.items():
        text = ": ".join(str(part) for part in (case, error.what, error.found) if part is not None)
        lines.append(text + (f" ({error.path})" if error.path else ""))
    return "\n".join(lines)


def explained(error: BaseException) -> UserError | None:
    """Return the `UserError` for a failure of the system that the user can mend; None for all others.

    Example:
        >>> print(explained(NotADirectoryError(errno.ENOTDIR, "Not a directory", "scan.nii/sub")))
        A path leads through a file
          file:     scan.nii/sub
          found:    Not a directory
          do:       choose another path
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, UnicodeEncodeError):
        do = "rename the file or folder"
        return UserError("A name cannot be written as UTF-8", ascii(error.object), do=do)
    if isinstance(error, ValueError) and "null byte" in str(error):
        return UserError("A path holds a null byte", do="correct the path")
    if not isinstance(error, OSError) or error.errno not in _SYSTEM:
        return None
    what, do = _SYSTEM[error.errno]
    name = error.filename if isinstance(error.filename, (str, bytes)) else None
    return UserError(what, error.strerror, do=do, path=None if name is None else os.fsdecode(name))
