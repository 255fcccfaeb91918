"""The record of a folder: what semivox did there, and which files are its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from semivox.errors import UserError, shortened
from semivox.files import read_json, signature, write_json
from semivox.version import __version__


class Manifest:
    """What semivox did in a folder, and which of its files are semivox's own: `FOLDER/run_report.json`.

    Files that are not listed there are neither overwritten nor deleted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "run_report.json"

    def read(self) -> dict[str, Any]:
        """Return the content; an empty dictionary if there is none."""
        content = read_json(self.path) if self.path.is_file() else {}
        return content if isinstance(content, dict) else {}

    def update(self, **entries: Any) -> None:
        """Replace these entries."""
        write_json(self.path, {**self.read(), **entries})

    def report(self, verb: str, **facts: Any) -> None:
        """Note what a verb did: one entry a verb, the newest replaces the older."""
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        self.update(**{verb: {"finished": finished, "semivox": __version__, **facts}})

    def files(self) -> dict[str, Any]:
        """Return the paths of semivox's files, with the content hash of those that users may edit."""
        files = self.read().get("files")
        items = files.items() if isinstance(files, dict) else ()
        return {name: mark for name, mark in items if ".." not in Path(name).parts and name[:1] != "/"}

    def owns(self, name: str) -> bool:
        """Whether semivox wrote this file."""
        return name in self.files()

    def require_own(self, *names: str) -> None:
        """Raise a `UserError` if one of these files exists that semivox did not write."""
        own = self.files()
        if foreign := [name for name in names if name not in own and (self.folder / name).exists()]:
            what = "The folder holds files that this version of semivox did not write"
            expected = "an empty folder, or one that semivox made"
            do = "choose another folder; nothing was changed in this one"
            raise UserError(what, shortened(foreign, 5), expected, do, self.folder)

    def claim(self, *names: str) -> None:
        """List files as semivox's own, before they are written; errors as of `require_own`."""
        self.require_own(*names)
        self.update(files={**self.files(), **dict.fromkeys(names)})

    def sign(self, name: str) -> None:
        """Remember the content of a file that semivox has written, so that an edit shows."""
        self.update(files={**self.files(), name: signature(self.folder / name)[-1]})

    def is_edited(self, name: str) -> bool:
        """Whether a file exists that is not as semivox wrote it."""
        path, files = self.folder / name, self.files()
        if not path.is_file():
            return False
        return name not in files or files[name] not in (None, signature(path)[-1])

    @contextmanager
    def adopting(self, *folders: str) -> Iterator[None]:
        """List as semivox's own every file that appears below these folders inside the block."""
        before = self._below(folders)
        try:
            yield
        finally:
            if new := sorted(self._below(folders) - before):
                self.update(files={**dict.fromkeys(new), **self.files()})

    def remove(self) -> None:
        """Delete semivox's own files and the folders that become empty by that; the report goes last."""
        files = self.files()
        for name in files:
            (self.folder / name).unlink(missing_ok=True)
        for parent in sorted({parent for name in files for parent in Path(name).parents}, reverse=True):
            if parent != Path():
                with suppress(OSError):
                    (self.folder / parent).rmdir()
        if files:
            self.path.unlink(missing_ok=True)

    def _below(self, folders: tuple[str, ...]) -> set[str]:
        found = (path for name in folders for path in (self.folder / name).rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in found}
