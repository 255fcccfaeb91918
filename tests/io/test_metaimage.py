"""MetaImage headers that end the process inside ITK, or that it answers with voxels of unread memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semivox.errors import UserError
from semivox.io.volume import read_image

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)  # (Z, Y, X)
NAMES = [f"slice{number:03d}.raw" for number in range(1, 7)]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A header whose voxels lie in four files, and two files more that do not belong to it."""
    image = sitk.GetImageFromArray(VOXELS)
    image.SetSpacing((1.0, 2.0, 3.0))
    sitk.WriteImage(image, str(tmp_path / "whole.mha"))
    for name, voxels in zip(NAMES, [*VOXELS, *VOXELS[:2]], strict=True):
        (tmp_path / name).write_bytes(voxels.tobytes())
    (tmp_path / "scan.mhd").write_bytes((tmp_path / "whole.mha").read_bytes().split(b"LOCAL\n")[0])
    return tmp_path / "scan.mhd"


def listed(count: int, word: str = "LIST") -> str:
    return "\n".join([word, *NAMES[:count]])


def add(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text + "\n")


@pytest.mark.parametrize(
    "files",
    [
        *["slice%03d.raw 1 4 1", "slice%03d.raw 1 4 +01", "slice%03d.raw 1", "slice%03d.raw"],
        *[listed(4), listed(4, "LIST 2"), listed(4) + "\n"],
    ],
)
def test_a_file_a_slice_is_read(scan: Path, files: str) -> None:
    add(scan, files)
    found, whole = read_image([scan]), read_image([scan.with_name("whole.mha")])
    np.testing.assert_array_equal(found.array, VOXELS.T[None])
    np.testing.assert_array_equal(found.affine, whole.affine)


@pytest.mark.parametrize(
    "files",
    [  # the first two lines end the process inside ITK
        *["slice%03d.raw 1 4 0", "slice%03d.raw 1 4 -0", "slice%03d.raw 1 4 x", "slice%03d.raw 1 4"],
        *["slice%03d.raw 1 4 1 0", "a slice%03d.raw 1 4 0"],
        *["slice%03d.raw 1 3 1", "slice%03d.raw 1 4 2", "slice%03d.raw 4 1 -1", "slice%03d.raw 1 6 1"],
        *[listed(3), listed(6), listed(0), listed(4, "LIST 1"), listed(1, "LIST 3"), listed(4, "LIST -1")],
    ],
)
def test_files_that_do_not_make_up_the_image(scan: Path, files: str) -> None:
    add(scan, files)
    with pytest.raises(UserError, match="a file a slice") as raised:
        read_image([scan])
    assert raised.value.path == scan
    assert files.partition("\n")[0] in str(raised.value.found)
    assert "4 files for DimSize = 6 5 4" in str(raised.value.expected)


def test_a_slice_that_is_missing(scan: Path) -> None:
    add(scan, "slice%03d.raw 1 4 1")
    scan.with_name(NAMES[2]).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read_image([scan])


@pytest.mark.parametrize("value", ["-1", "0", "2", "100", "999999999", ""])
def test_axes_that_would_end_the_process(scan: Path, value: str) -> None:
    """ITK aborts the interpreter, or overruns its arrays, on these."""
    path = scan.with_name("whole.mha")
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", f"NDims = {value}".encode()))
    with pytest.raises(UserError, match="not a 3D image") as raised:
        read_image([path])
    assert raised.value.found == f"NDims = {value}" and raised.value.path == path


@pytest.mark.parametrize("value", ["0", "-3", "99999999", "x"])
def test_channels_that_no_scan_has(scan: Path, value: str) -> None:
    path = scan.with_name("whole.mha")
    line = f"ElementNumberOfChannels = {value}\nElementDataFile".encode()
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", line))
    with pytest.raises(UserError, match="number of channels"):
        read_image([path])
