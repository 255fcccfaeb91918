"""Which files make up which scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from semivox.errors import UserError
from semivox.inference.sources import find_scans, read_scan


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def listed(folder: Path, channels: int = 1) -> dict[str, list[str]]:
    return {scan.name: [file.name for file in scan.files] for scan in find_scans(folder, channels)}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b.nii.gz", "a.nii"], {"a": ["a.nii"], "b": ["b.nii.gz"]}),
        (
            ["a_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz"],
            {"a": ["a_0000.nii.gz", "a_0001.nii.gz"], "b": ["b_0000.nii.gz"]},
        ),
        # numbered from 1: scans, not channels
        (["a_0001.nii.gz", "a_0002.nii.gz"], {"a_0001": ["a_0001.nii.gz"], "a_0002": ["a_0002.nii.gz"]}),
        (
            ["Müller, Jörg (2).nii.gz", "心 1.nii"],
            {"Müller, Jörg (2)": ["Müller, Jörg (2).nii.gz"], "心 1": ["心 1.nii"]},
        ),
        (["a.nii.gz", "._a.nii.gz", "notes.txt", "a.json"], {"a": ["a.nii.gz"]}),
        (["a.b.c.nii.gz"], {"a.b.c": ["a.b.c.nii.gz"]}),
    ],
)
def test_folder(tmp_path, names, expected):
    assert listed(touch(tmp_path, *names)) == expected


def test_one_file(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b.nii.gz", "c_0000.nii.gz")
    assert listed(tmp_path / "b.nii.gz") == {"b": ["b.nii.gz"]}
    assert listed(tmp_path / "c_0000.nii.gz") == {"c": ["c_0000.nii.gz"]}
    assert listed(tmp_path / "a_0000.nii.gz") == {"a": ["a_0000.nii.gz"]}
    for name in ("a_0000.nii.gz", "a_0001.nii.gz"):
        assert listed(tmp_path / name, channels=2) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}


@pytest.mark.parametrize("names", [["a.nii.gz", "a.nii"], ["a.nii.gz", "a_0000.nii.gz"]])
def test_two_files_of_one_name(tmp_path, names):
    with pytest.raises(UserError, match="Several files"):
        find_scans(touch(tmp_path, *names), 1)


def test_empty_folder_names_the_inner_one_with_scans(tmp_path):
    with pytest.raises(UserError, match="no scans in this folder"):
        find_scans(tmp_path, 1)
    (tmp_path / "imagesTs").mkdir()
    touch(tmp_path / "imagesTs", "a.nii.gz")
    with pytest.raises(UserError, match=r"do: +name the folder .*imagesTs"):
        find_scans(tmp_path, 1)


@pytest.mark.parametrize("name", ["nothing.nii.gz", "scan.png"])
def test_not_a_scan(tmp_path, name):
    touch(tmp_path, "scan.png")
    with pytest.raises(UserError, match="no scan here"):
        find_scans(tmp_path / name, 1)


def test_gap_in_the_channels(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0002.nii.gz")
    (scan,) = find_scans(tmp_path, 2)
    with pytest.raises(UserError, match=r"channel of the scan is missing(.|\n)*a_0000, a_0001"):
        read_scan(scan)
