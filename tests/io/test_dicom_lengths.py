"""Declared lengths of DICOM elements: whole files pass; one too long is named before it costs memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semivox.errors import UserError
from semivox.io.dicom_lengths import check_lengths
from semivox.io.dicom_series import Slice

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
from dicom_writer import write_series  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

UNDEFINED = (True, False)


def nested(*, undefined: bool) -> Sequence:
    """Two items, one with a sequence of its own and a private element of unknown kind."""
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "left"
    inner.is_undefined_length_sequence_item = undefined
    outer = Dataset()
    outer.ConceptNameCodeSequence = Sequence([inner])
    outer["ConceptNameCodeSequence"].is_undefined_length = undefined
    outer.add_new((0x0009, 0x1001), "UN", b"private!")
    outer.is_undefined_length_sequence_item = undefined
    return Sequence([outer, Dataset()])


def one_slice(folder: Path, syntax: str = ExplicitVRLittleEndian, *, undefined: bool = False) -> Path:
    path = write_series(folder, np.ones((5, 4, 1), np.float32))[0]
    ds = pydicom.dcmread(path)
    ds.ContentSequence = nested(undefined=undefined)
    ds["ContentSequence"].is_undefined_length = undefined
    if syntax == JPEG2000Lossless:
        ds.PixelData = encapsulate([ds.PixelData])
        ds["PixelData"].is_undefined_length = True
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
    copy = Dataset(ds)  # forgets the encoding of the file it came from
    copy.file_meta = ds.file_meta
    copy.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, copy, enforce_file_format=True)
    return path


@pytest.mark.parametrize("undefined", UNDEFINED)
@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_whole_files_pass(tmp_path: Path, syntax: str, undefined: bool) -> None:
    path = one_slice(tmp_path, syntax, undefined=undefined)
    check_lengths(path)
    assert Slice.read(path).path == path


@pytest.mark.parametrize("undefined", UNDEFINED)
@pytest.mark.parametrize(
    ("syntax", "head", "place"),
    [
        (ExplicitVRLittleEndian, b"\x08\x00\x00\x01SH", "(0008,0100)"),  # in an item of an item
        (ExplicitVRLittleEndian, b"\x09\x00\x01\x10UN\0\0", "(0009,1001)"),
        (ExplicitVRLittleEndian, b"\x28\x00\x10\x00US", "(0028,0010)"),  # after the sequence
        (ExplicitVRLittleEndian, b"\xe0\x7f\x10\x00OW\0\0", "(7fe0,0010)"),
        (ImplicitVRLittleEndian, b"\x28\x00\x10\x00", "(0028,0010)"),
        (ImplicitVRLittleEndian, b"\xe0\x7f\x10\x00", "(7fe0,0010)"),
    ],
)
def test_an_element_longer_than_what_follows_is_named(
    tmp_path: Path, syntax: str, head: bytes, place: str, undefined: bool
) -> None:
    path = one_slice(tmp_path, syntax, undefined=undefined)
    content = bytearray(path.read_bytes())
    at = content.index(head)
    size = 2 if head[-2:].isupper() else 4
    declared = 2 ** (8 * size - 1)
    start = at + len(head) + size
    content[at + len(head) : start] = declared.to_bytes(size, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as DICOM") as error:
        check_lengths(path)
    follow = len(content) - start
    assert error.value.found == f"element {place} at byte {at} declares {declared} bytes, but {follow} follow"


def test_a_file_of_another_kind_is_left_to_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xff" * 400)
    check_lengths(path)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux")
def test_a_damaged_length_costs_no_memory(tmp_path: Path) -> None:
    """GDCM alone takes 1.9 GB for this one."""
    path = write_series(tmp_path, np.ones((5, 4, 1), np.float32))[0]
    content = bytearray(path.read_bytes())
    at = content.index(b"\x08\x00\x60\x00CS")
    content[at + 4 : at + 8] = (0x70000000).to_bytes(4, "little")  # no kind is read as a long length
    path.write_bytes(content)
    code = f"""
from pathlib import Path
from semivox.io.dicom_series import Slice
from semivox.errors import UserError

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

before = peak()
try:
    Slice.read(Path({str(path)!r}))
except UserError:
    print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100
