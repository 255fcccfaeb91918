"""Files written whole or not at all, by one process at a time, and known by their content."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import yaml

from semivox.errors import UserError, explained

LOCK = ".semivox.lock"
_FULL = re.compile(
    r"no space left|quota exceeded|os error (28|122)|\bcode: (28|122)\b|inline_container", re.IGNORECASE
)
_DATA_FILE = re.compile(rb"(?im)^(?:ElementDataFile\s*=|data ?file:)[ \t]*(\S.*?)\s*$")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an exception.

    The temporary name keeps all suffixes (`.nii.gz`), so that writers which look at them work. Whatever goes
    wrong, an existing `path` stays as it was and the temporary file is removed. The file's mode follows the
    umask, whatever mode the writer chose.

    Raises:
        UserError: the disk is full (however the writer reports it), or `path` cannot be written.
    """
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name[-40:]}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode & 0o777
            yield temporary
            temporary.chmod(mode)
            temporary.replace(path)
        finally:
            with suppress(OSError, ValueError):
                temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn failures of writing `path` that the user can mend into a `UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = not isinstance(error, OSError) and _FULL.search(str(error))  # of torch or safetensors
        known = explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else error)
        if known is None:
            raise
        raise UserError(known.what, known.found, known.expected, known.do, path) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of `folder` inside the block; the lock ends with the process, however that ends.

    Folders that did not exist are made, and removed again if nothing was written into them.

    Raises:
        UserError: another process holds the lock.
    """
    path = folder / LOCK
    new = [part for part in (folder, *folder.parents) if not part.exists()]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        file = _acquire(path)
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(file)
    finally:
        with suppress(OSError):
            for part in new:
                part.rmdir()


def _acquire(path: Path) -> int:
    while True:
        with writing(path):
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file)):
                os.truncate(file, 0)
                os.write(file, str(os.getpid()).encode())
                return file
            os.close(file)  # its last holder has just removed it
        except BlockingIOError as error:
            holder = os.read(file, 20).decode() or "unknown"
            os.close(file)
            what, found = "Another semivox command is writing to this folder", f"process {holder}"
            do = "wait until it has ended, or choose another folder"
            raise UserError(what, found, "one writer at a time", do, path.parent) from error


def signature(path: Path, known: Sequence[Any] | None = None) -> list[Any]:
    """Return size, modification time (ns) and content hash of a file and its `voxel_file`, for `json`.

    If size and time are still those of `known`, an earlier signature, the file is not read. A file that
    cannot be read is a `UserError`.
    """
    try:
        parts = [part for part in (path, voxel_file(path)) if part is not None]
        stats = [part.stat() for part in parts]
        found = [sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]
        if known is not None and list(known[:2]) == found:
            return list(known)
        total = blake2b(digest_size=16)
        for part in parts:
            with part.open("rb") as file:
                total.update(file_digest(file, lambda: blake2b(digest_size=16)).digest())
        return [*found, total.hexdigest()]
    except OSError as error:
        raise _unreadable(path, error.strerror) from error


def voxel_file(path: Path) -> Path | None:
    """Return the file that a header (.mhd, .nhdr) names for its voxels; None: they lie in `path` itself."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return None
    found = path.parent / named_voxels(path)
    return found if found.is_file() and found != path else None


def named_voxels(path: Path) -> str:
    """Return what the header of a MetaImage or NRRD file says where its voxels are; empty: nothing."""
    with path.open("rb") as stream:
        found = _DATA_FILE.search(stream.read(1 << 16))
    return found[1].decode(errors="replace") if found else ""


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON (UTF-8, keys in the given order, NaN as null)."""
    write_text(path, json.dumps(_without_nan(value), indent=1, ensure_ascii=False) + "\n")


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML (UTF-8, keys in the given order)."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100))


def read_text(path: Path) -> str:
    """Read UTF-8 text, with or without a byte order mark; a file that cannot be read is a `UserError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, getattr(error, "strerror", "bytes that are not UTF-8 text")) from error


def read_json(path: Path) -> Any:
    """Read JSON, with or without a byte order mark; a missing or broken file is a `UserError`."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError("The file is not valid JSON", where, "JSON", "correct that line", path) from error


def read_yaml(path: Path) -> Any:
    """Read YAML; a missing or broken file is a `UserError`."""
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, source: Path | str) -> Any:
    """Parse YAML in which each key stands once and 1e-3 is a number; `source` names it in messages."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        found = " ".join(str(error).split())[:300]
        raise UserError("This is not valid YAML", found, "YAML", "correct it", source) from error


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, without its two traps: 1e-3 as text, and the last of two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if key != "<<" and keys.count(key) > 1), None):
            problem = f"the key {twice} stands here twice"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _unreadable(path: Path, found: str | None) -> UserError:
    return UserError("The file cannot be read", found, "a readable file", "check the path", path)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
