"""Random damage to NRRD and MetaImage files: a usable result or a message, no crash."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from fuzzing import cases, check_readers, damaged
from hypothesis import given
from hypothesis import strategies as st

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


@cases(120)
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
