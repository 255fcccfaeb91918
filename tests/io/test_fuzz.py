"""Random damage: a reader gives a usable result or a message, and never allocates what a header dreams of."""

from __future__ import annotations

import gzip
import json
import logging
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semivox.datasets.dataset import open_dataset
from semivox.errors import UserError
from semivox.io import reader
from semivox.io.dicom_series import find_series
from semivox.io.volume import Volume, read_header, read_image, read_label


def cases(count: int) -> Any:
    """The same cases in every run."""
    checks = list(HealthCheck)
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=checks
    )


def damaged(content: bytes, patches: list[tuple[int, bytes]], cut: int | None) -> bytes:
    """Overwrite bytes at the given offsets, then keep the first `cut`."""
    data = bytearray(content)
    for offset, value in patches:
        data[offset : offset + len(value)] = value
    return bytes(data[:cut])


def outcome(read: Callable[[], Any]) -> Any:
    """What was read, or None after a message that names what was found and what to do."""
    try:
        return read()
    except UserError as error:
        assert error.path is not None and error.found is not None and error.do
        return None


def check_volume(volume: Volume | None) -> None:
    if volume is not None:
        assert volume.array.size > 0
        assert np.isfinite(volume.array).all() and np.isfinite(volume.affine).all()
        assert all(0 < side < np.inf for side in volume.spacing_mm)


def check_readers(path: Path) -> None:
    tracemalloc.start()
    try:
        image = outcome(lambda: read_image([path]))
        label = outcome(lambda: read_label(path, (0, 1, 2)))
        outcome(lambda: read_header(path))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    check_volume(image)
    check_volume(label)


def scan(
    dtype: Any, shape: tuple[int, ...] = (3, 4, 5), kind: Any = nib.Nifti1Image, extra: bool = False
) -> bytes:
    array = (np.arange(np.prod(shape)) % 3).reshape(shape).astype(dtype)
    image = kind(array, np.diag([1, 2, 3, 1]))
    if extra:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"twenty-four bytes of text"))
    return bytes(image.to_bytes())


BASES = {
    "uint8": scan(np.uint8),
    "big-endian": scan(">i2"),
    "float": scan(np.float32, (3, 4, 5, 2)),
    "double": scan(np.float64),
    "second": scan(np.int16, kind=nib.Nifti2Image),
    "extension": scan(np.uint8, extra=True),
}
# Dimensions, type, voxel sizes, offset, scaling, units, codes, quaternion, matrix, magic.
FIELDS = [40, 42, 44, 46, 48, 50, 68, 70, 72, 76, 80, 84, 88, 108, 112, 116, 123, 252, 254, 256, 268, 280,
          296, 312, 328, 344, 348, 352, 356]  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-45, 1e38, 352.0])
    .map(lambda value: struct.pack("<f", value)),
    st.sampled_from([0, 1, -1, 2, 7, 8, 16, 127, 128, 255, 511, 768, 2304, 32767, -32768])
    .map(lambda value: struct.pack("<h", value)),
    st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31), 16, -16, 8]).map(lambda value: struct.pack("<i", value)),
    st.sampled_from([10**12, -1, 2**63 - 1]).map(lambda value: struct.pack("<q", value)),
    st.binary(min_size=1, max_size=16),
)  # fmt: skip
PATCHES = st.lists(st.tuples(st.one_of(st.sampled_from(FIELDS), st.integers(0, 700)), NUMBERS), max_size=4)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Nibabel reports each header that it repairs."""
    caplog.set_level(logging.CRITICAL + 1, "nibabel.global")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@cases(250)
@given(
    base=st.sampled_from(list(BASES)), patches=PATCHES, cut=st.one_of(st.none(), st.integers(0, 700)),
    compressed=st.booleans(), cut_again=st.one_of(st.none(), st.none(), st.integers(0, 400)),
)  # fmt: skip
def test_damaged_nifti_files(
    folder: Path,
    base: str,
    patches: list[tuple[int, bytes]],
    cut: int | None,
    compressed: bool,
    cut_again: Any,
) -> None:
    content = damaged(BASES[base], patches, cut)
    if compressed:
        content = gzip.compress(content, 1)[:cut_again]
    path = folder / ("scan.nii.gz" if compressed else "scan.nii")
    path.write_bytes(content)
    check_readers(path)


@cases(80)
@given(st.binary(max_size=600), st.sampled_from(["scan.nii", "scan.nii.gz"]))
def test_files_of_random_bytes(folder: Path, content: bytes, name: str) -> None:
    (folder / name).write_bytes(content)
    check_readers(folder / name)


def with_dimensions(*sides: int) -> bytes:
    data = bytearray(scan(np.uint8, kind=nib.Nifti2Image))
    data[16:80] = struct.pack("<8q", len(sides), *sides, *[1] * (7 - len(sides)))
    return bytes(data)


BOMBS = {
    "a trillion voxels": with_dimensions(10_000, 10_000, 10_000),
    "more voxels than a number holds": with_dimensions(2**62, 2**62, 2**62),
    "many axes": with_dimensions(*[1000] * 7),
    "negative": with_dimensions(-5, 10_000, 10_000),
}


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_headers_that_announce_too_much_are_refused_before_anything_is_allocated(
    tmp_path: Path, bomb: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[bomb] if name.endswith("nii") else gzip.compress(BOMBS[bomb]))
    with pytest.raises(UserError, match="the header announces"):
        read_image([path])
    check_readers(path)


def test_a_whole_scan_beyond_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(BASES["double"]))
    read_here = read_image.__wrapped__
    monkeypatch.setattr(reader, "machine_memory", lambda: 60 * (8 + 4))
    assert read_here([path]).array.size == 60
    monkeypatch.setattr(reader, "machine_memory", lambda: 60 * (8 + 4) - 1)
    with pytest.raises(UserError, match="does not fit into this machine's memory") as error:
        read_here([path])
    assert "3 x 4 x 5 voxels of 8 bytes" in str(error.value)


def test_a_compressed_file_is_not_unpacked_beyond_what_its_header_announces(tmp_path: Path) -> None:
    """50 MB of zeros behind a scan of 60 voxels, which deflate packs into 50 kB."""
    pack = zlib.compressobj(9, wbits=31)
    content = pack.compress(BASES["uint8"]) + b"".join(pack.compress(bytes(10**7)) for _ in range(5))
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content + pack.flush())
    with pytest.raises(UserError, match="the header announces"):
        read_image([path])
    check_readers(path)


def test_padding_and_several_members_are_no_damage(tmp_path: Path) -> None:
    path, data = tmp_path / "scan.nii.gz", BASES["uint8"]
    for content in (
        gzip.compress(data + bytes(1000)),
        gzip.compress(data) + bytes(512),
        gzip.compress(data[:380]) + gzip.compress(data[380:]),
    ):
        path.write_bytes(content)
        np.testing.assert_array_equal(read_image([path]).array[0], np.arange(60).reshape(3, 4, 5) % 3)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8),
        st.sampled_from(["", "0", "1", "CT", "background", "./imagesTr/a_0000.nii.gz", "../../a.nii.gz",
                         "a\0.nii", "ignore", ".nii.gz", ".nii", "semivox", "train", "\ud800"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["0", "1", "image", "label"]), inner)
    ),
    max_leaves=8,
)  # fmt: skip
KEYS = ["channel_names", "labels", "file_ending", "name", "modality", "training", "test", "format", "version",
        "root", "channels", "class_names", "class_values", "cases", "numTraining"]  # fmt: skip
DESCRIPTIONS: list[dict[str, Any]] = [
    {"channel_names": {"0": "MR"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"},
    {"modality": {"0": "MR"}, "labels": {"0": "background", "1": "x"},
     "training": [{"image": "./imagesTr/a_0000.nii.gz", "label": "./labelsTr/a.nii.gz"}]},
    {"format": "semivox", "version": 1, "name": "D", "root": ".", "channels": ["MR"],
     "class_names": ["background", "x"], "class_values": [0, 1],
     "cases": [{"name": "a", "pool": "train", "images": ["imagesTr/a_0000.nii.gz"], "label": None}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dataset")
    (root / "imagesTr").mkdir()
    (root / "imagesTr" / "a_0000.nii.gz").write_bytes(b"")
    return root


def check_dataset(folder: Path) -> None:
    try:
        dataset = open_dataset(folder)
    except UserError as error:
        assert error.path is not None
        str(error).encode()
        return
    assert dataset.cases and len(dataset.class_names) == len(dataset.class_values) >= 2 and dataset.channels


@cases(200)
@given(st.sampled_from(DESCRIPTIONS), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3),
       st.sets(st.sampled_from(KEYS), max_size=2))  # fmt: skip
def test_strange_descriptions(
    dataset_folder: Path, base: dict[str, Any], changed: dict[str, Any], dropped: set[str]
) -> None:
    content = {key: value for key, value in {**base, **changed}.items() if key not in dropped}
    (dataset_folder / "dataset.json").write_text(json.dumps(content))
    check_dataset(dataset_folder)


@cases(80)
@given(st.sampled_from(DESCRIPTIONS), st.integers(0, 200), st.binary(max_size=8))
def test_damaged_descriptions(dataset_folder: Path, base: dict[str, Any], at: int, inserted: bytes) -> None:
    content = json.dumps(base).encode()
    (dataset_folder / "dataset.json").write_bytes(content[:at] + inserted + content[at + len(inserted) :])
    check_dataset(dataset_folder)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '{"labels": 1e999}', "\x00"]
)
def test_hostile_descriptions(dataset_folder: Path, content: str) -> None:
    (dataset_folder / "dataset.json").write_text(content)
    with pytest.raises(UserError):
        open_dataset(dataset_folder)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
def test_other_formats_that_announce_too_much(tmp_path: Path, name: str) -> None:
    header = {
        "scan.nrrd": "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        "sizes: 10000 10000 10000\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
        "endian: little\nencoding: raw\n\n",
        "scan.mha": "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        "ElementSpacing = 1 1 1\nDimSize = 10000 10000 10000\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\n",
    }
    (tmp_path / name).write_bytes(header[name].encode() + bytes(100))
    with pytest.raises(UserError, match="does not fit into this machine's memory"):
        read_image([tmp_path / name])


VOXELS = (np.arange(4 * 5 * 6) % 3).reshape(4, 5, 6).astype(np.uint8)
TEXTS = [b"-1", b"0", b"nan", b"inf", b"1e999", b"999999999", b"\n", b" ", b"9 9 9 9", b"\x00" * 4]


@pytest.fixture(scope="module")
def wholes(folder: Path) -> dict[str, bytes]:
    image, content = sitk.GetImageFromArray(VOXELS), {}
    image.SetSpacing((1.0, 2.0, 3.0))
    for name in ("scan.nrrd", "scan.mha"):
        for packed in (False, True):
            sitk.WriteImage(image, str(folder / name), useCompression=packed)
            content["compressed " * packed + name] = (folder / name).read_bytes()
    return content


@cases(120)
@given(
    name=st.sampled_from(["scan.nrrd", "scan.mha", "compressed scan.nrrd", "compressed scan.mha"]),
    patches=st.lists(  # damage falls into the first bytes, where the headers are
        st.tuples(st.integers(0, 400), st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(TEXTS))),
        min_size=1,
        max_size=4,
    ),
    cut=st.one_of(st.none(), st.integers(0, 700)),
)
def test_damaged_nrrd_and_metaimage(
    folder: Path, wholes: dict[str, bytes], name: str, patches: list[tuple[int, bytes]], cut: int | None
) -> None:
    path = folder / name.rsplit(maxsplit=1)[-1]
    path.write_bytes(damaged(wholes[name], patches, cut))
    check_readers(path)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bytes]:
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    from dicom_writer import write_series

    paths = write_series(tmp_path_factory.mktemp("series"), VOXELS.astype(np.float32))
    return {path: path.read_bytes() for path in paths}


@cases(70)
@given(
    which=st.integers(0, 5),
    patches=st.lists(st.tuples(st.integers(0, 1100), st.binary(min_size=1, max_size=8)), max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 1100)),
)
def test_a_damaged_slice_in_a_series(
    series: dict[Path, bytes], which: int, patches: list[tuple[int, bytes]], cut: int | None
) -> None:
    for index, (path, content) in enumerate(series.items()):
        path.write_bytes(damaged(content, patches, cut) if index == which else content)
    outcome(lambda: find_series(path.parent))
    check_volume(outcome(lambda: read_image([path.parent])))
