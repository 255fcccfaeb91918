"""Whole files or none, one writer, content that is recognised, and failures that say what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from semivox.errors import UserError
from semivox.files import locked, parse_yaml, read_json, replacing, signature, write_json, write_text


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_clear_message_whoever_writes(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "x.nii.gz"
    with (
        pytest.raises(UserError, match=r"(?s)[Dd]isk.*resumes where") as caught,
        replacing(path) as temporary,
    ):
        assert temporary.name.endswith("x.nii.gz")
        temporary.write_text("half")
        raise error
    assert caught.value.path == path
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    """The temporary name leads to /dev/full, where every write fails for lack of space."""
    (tmp_path / f".partial-{os.getpid()}-last.ckpt").symlink_to("/dev/full")
    with pytest.raises(UserError, match="disk is full"), replacing(tmp_path / "last.ckpt") as temporary:
        torch.save({"weights": torch.zeros(100_000)}, temporary)


@pytest.mark.parametrize("name", ["file/x.txt", "file/sub/x.txt", "folder", "x" * 300, "a\0b"])
def test_impossible_places_are_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError):
        write_text(tmp_path / name, "text")
    with pytest.raises(UserError), locked(tmp_path / "file/sub"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("name", ["x" * 250 + ".json", "\udce4.json", "心臓" * 40 + ".nii.gz"])
def test_any_name_that_the_system_accepts(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_modes_follow_the_umask_whatever_the_writer_does(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "model.safetensors") as temporary:
            safetensors.torch.save_file({"a": torch.zeros(3)}, temporary)
            temporary.chmod(0o600)
        write_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_one_writer_at_a_time_and_no_trace(tmp_path: Path) -> None:
    folder = tmp_path / "new/run"
    with locked(folder):
        with (
            pytest.raises(UserError, match=rf"(?s)Another semivox command.*process {os.getpid()}"),
            locked(folder),
        ):
            pass
        code = "import sys, pathlib, semivox.files as f\nwith f.locked(pathlib.Path(sys.argv[1])): pass"
        other = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=False
        )
        assert "Another semivox command is writing to this folder" in other.stderr
    assert list(tmp_path.iterdir()) == []
    with locked(folder):
        (folder / "kept.txt").touch()
    assert [path.name for path in folder.iterdir()] == ["kept.txt"]


def test_signatures_tell_content_from_time(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(b"old")
    first = signature(path)
    assert signature(path, first) == first
    os.utime(path, ns=(5, 5))
    touched = signature(path, first)
    assert (touched[0], touched[1], touched[2]) == (3, 5, first[2])
    path.write_bytes(b"new")
    assert signature(path, first)[2] != first[2]
    os.utime(path, ns=(5, 5))
    assert signature(path, touched) == touched, "of the same size and time, a file is not read again"


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.mhd", "NDims = 3\nElementDataFile = v.raw"), ("a.nhdr", "NRRD0004\ndata file: v.raw")],
)
def test_the_voxels_that_a_header_names_belong_to_it(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    for other in ("v.raw", "a.raw"):
        (tmp_path / other).write_bytes(b"1")
    first = signature(tmp_path / name)
    (tmp_path / "a.raw").write_bytes(b"2")
    assert signature(tmp_path / name) == first
    (tmp_path / "v.raw").write_bytes(b"2")
    assert signature(tmp_path / name)[2] != first[2]


def test_json_keeps_unicode_and_turns_nan_into_null(tmp_path: Path) -> None:
    path = tmp_path / "ü.json"
    write_json(path, {"größe": [1.5, float("nan")]})
    assert read_json(path) == {"größe": [1.5, None]}


def test_broken_files_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(UserError, match="line 2"):
        read_json(path)
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path) == [1]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_json(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"(?s)not valid YAML.*--set a"):
        parse_yaml("[1", "--set a=[1")


def test_errors_survive_pickling() -> None:
    import pickle

    error = UserError("Bad", found="this", expected="that", do="fix", path=Path("a"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
