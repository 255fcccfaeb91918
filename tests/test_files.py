"""Whole files or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from semivox.errors import UserError
from semivox.files import read_json, replacing, write_json, write_text


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    with pytest.raises(UserError, match="disk is full") as caught, replacing(path) as temporary:
        assert temporary.name.endswith("x.nii.gz")
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_json_keeps_unicode_and_turns_nan_into_null(tmp_path: Path) -> None:
    path = tmp_path / "ü.json"
    write_json(path, {"größe": [1.5, float("nan")]})
    assert read_json(path) == {"größe": [1.5, None]}


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(UserError, match="line 2"):
        read_json(path)


def test_errors_survive_pickling() -> None:
    import pickle

    error = UserError("Bad", found="this", expected="that", do="fix", path=Path("a"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
