"""Random damage to NRRD and MetaImage files: a usable result or a message, no crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from fuzzing import cases, check_readers, damaged
from hypothesis import given
from hypothesis import strategies as st

from semivox.data.volume import read_image
from semivox.errors import UserError

VOXELS = (np.arange(4 * 5 * 6) % 3).reshape(4, 5, 6).astype(np.uint8)
HEADER = 400  # damage falls into the first bytes, where the headers are
PATCHES = st.lists(
    st.tuples(
        st.integers(0, HEADER),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from(
                [b"-1", b"0", b"nan", b"inf", b"1e999", b"999999999", b"\n", b" ", b"9 9 9 9", b"\x00" * 4]
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, content = tmp_path_factory.mktemp("wholes"), {}
    image = sitk.GetImageFromArray(VOXELS)
    image.SetSpacing((1.0, 2.0, 3.0))
    for name in ("scan.nrrd", "scan.mha"):
        sitk.WriteImage(image, str(folder / name))
        content[name] = (folder / name).read_bytes()
        sitk.WriteImage(image, str(folder / name), useCompression=True)
        content[f"compressed {name}"] = (folder / name).read_bytes()
    return content


@cases(250)
@given(
    name=st.sampled_from(["scan.nrrd", "scan.mha", "compressed scan.nrrd", "compressed scan.mha"]),
    patches=PATCHES,
    cut=st.one_of(st.none(), st.integers(0, 700)),
)
def test_damaged_nrrd_and_metaimage(
    wholes: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    patches: list[tuple[int, bytes]],
    cut: int | None,
) -> None:
    path = tmp_path_factory.getbasetemp() / name.rsplit(maxsplit=1)[-1]
    path.write_bytes(damaged(wholes[name], patches, cut))
    check_readers(path)


@pytest.mark.parametrize("value", ["-1", "0", "2", "100", "999999999", ""])
def test_axes_that_would_end_the_process(wholes: dict[str, bytes], tmp_path: Path, value: str) -> None:
    """ITK aborts the interpreter, or overruns its arrays, on these."""
    path = tmp_path / "scan.mha"
    path.write_bytes(wholes["scan.mha"].replace(b"NDims = 3", f"NDims = {value}".encode()))
    with pytest.raises(UserError, match="not a 3D image") as raised:
        read_image([path])
    assert raised.value.found == f"NDims = {value}" and raised.value.path == path


@pytest.mark.parametrize("value", ["0", "-3", "99999999", "x"])
def test_channels_that_no_scan_has(wholes: dict[str, bytes], tmp_path: Path, value: str) -> None:
    path = tmp_path / "scan.mha"
    line = f"ElementNumberOfChannels = {value}\nElementDataFile".encode()
    path.write_bytes(wholes["compressed scan.mha"].replace(b"ElementDataFile", line))
    with pytest.raises(UserError, match="number of channels"):
        read_image([path])


@pytest.mark.parametrize("numbers", ["1 4 0", "1 4 -0", "1 4 x", "1 4", "1 4 1 0"])
def test_a_pattern_of_slices_without_a_step(wholes: dict[str, bytes], tmp_path: Path, numbers: str) -> None:
    """ITK divides by the step."""
    path = tmp_path / "scan.mha"
    path.write_bytes(wholes["scan.mha"].split(b"LOCAL")[0] + f"slice%03d.raw {numbers}\n".encode())
    with pytest.raises(UserError, match="a file a slice"):
        read_image([path])


@pytest.mark.parametrize("numbers", ["1 4 1", "1 4 +01", "1"])
def test_a_pattern_of_slices_is_read(wholes: dict[str, bytes], tmp_path: Path, numbers: str) -> None:
    head, voxels = wholes["scan.mha"].split(b"LOCAL\n")
    for index in range(4):
        (tmp_path / f"slice{index + 1:03d}.raw").write_bytes(voxels[30 * index : 30 * index + 30])
    (tmp_path / "scan.mhd").write_bytes(head + f"slice%03d.raw {numbers}\n".encode())
    (tmp_path / "whole.mha").write_bytes(wholes["scan.mha"])
    found, whole = (read_image([tmp_path / name]) for name in ("scan.mhd", "whole.mha"))
    np.testing.assert_array_equal(found.array, whole.array)
    np.testing.assert_array_equal(found.affine, whole.affine)
