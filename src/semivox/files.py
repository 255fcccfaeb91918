"""Files written whole or not at all: to a temporary name in the same folder, then renamed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from semivox.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends without an exception.

    The temporary name keeps all suffixes (`.nii.gz`), so that writers which look at them work. Whatever
    goes wrong, an existing `path` stays as it was and the temporary file is removed.

    Raises:
        UserError: when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _write_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_error(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "The disk is full",
            path=path,
            found="no space left while writing; the unfinished file was removed",
            expected="room for the output",
            do="free some space, then run the same command again: it goes on where it stopped",
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError(
            "The file cannot be written",
            path=path,
            found=error.strerror,
            expected="a folder with write permission",
            do="choose another output folder",
        )
    return error


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


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is a `UserError`."""
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(
            "The file is not valid JSON",
            path=path,
            found=where,
            expected="JSON",
            do="correct that line",
        ) from error


def read_yaml(path: Path) -> Any:
    """Read YAML; a missing or broken file is a `UserError`."""
    try:
        return yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise UserError(
            "The file is not valid YAML",
            path=path,
            found=" ".join(str(error).split()),
            expected="YAML",
            do="correct it",
        ) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "The file cannot be read",
            path=path,
            found=getattr(error, "strerror", None) or "bytes that are not UTF-8 text",
            expected="a readable text file",
            do="check the path",
        ) from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
