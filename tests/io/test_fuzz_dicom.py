"""Random damage to one slice of a DICOM series: a usable result or a message, no crash."""

from __future__ import annotations

import numpy as np
import pytest
from fuzzing import cases, damaged, outcome
from hypothesis import given
from hypothesis import strategies as st

from semivox.io.dicom_series import find_series
from semivox.io.volume import read_image

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
from dicom_writer import write_series  # noqa: E402

VOXELS = (np.arange(4 * 5 * 6) % 3).reshape(4, 5, 6).astype(np.float32)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    paths = write_series(tmp_path_factory.mktemp("series"), VOXELS)
    return {path.name: path.read_bytes() for path in paths}


@cases(70)
@given(
    which=st.integers(0, 5),
    patches=st.lists(
        st.tuples(st.integers(0, 1100), st.binary(min_size=1, max_size=8)), min_size=0, max_size=4
    ),
    cut=st.one_of(st.none(), st.integers(0, 1100)),
)
def test_a_damaged_slice_in_a_series(
    series: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    which: int,
    patches: list[tuple[int, bytes]],
    cut: int | None,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    for index, (name, content) in enumerate(series.items()):
        (folder / name).write_bytes(damaged(content, patches, cut) if index == which else content)
    outcome(lambda: find_series(folder))
    volume = outcome(lambda: read_image([folder]))
    if volume is not None:
        assert volume.array.size > 0
        assert np.isfinite(volume.array).all() and np.isfinite(volume.affine).all()
