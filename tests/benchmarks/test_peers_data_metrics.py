"""The frozen peers of data and metrics give what semivox gives: only then may their times be compared."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from peers.data import read_case, read_patch, write_case
from peers.metrics import full_scores, published_scores
from semivox.evaluation.metrics import case_metrics
from semivox.patches.sampling import cut, random_start
from semivox.preprocessing.store import Store

PATCH = (112, 112, 80)


def real_case(real_data: Path, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    folder = real_data / "la2018"
    name = sorted(path.name for path in (folder / "labelsTr").glob("*.nii.gz"))[index]
    image = nib.load(folder / "imagesTr" / name.replace(".nii.gz", "_0000.nii.gz")).get_fdata(
        dtype=np.float32
    )
    return image, np.asarray(nib.load(folder / "labelsTr" / name).dataobj).astype(np.uint8)


@pytest.mark.real
@pytest.mark.parametrize("small", [False, True], ids=["whole", "smaller than the patch"])
def test_the_same_patch_from_both_files(real_data: Path, tmp_path: Path, small: bool) -> None:
    """Same random numbers, same place; the store rounds the image to half precision, the label not at all."""
    image, label = real_case(real_data)
    if small:
        image, label = image[:109, 30:, :77], label[:109, 30:, :77]
    write_case(tmp_path / "a.h5", image, label)
    store = Store(tmp_path / "store")
    store.write_image("a", image[None], {})
    store.write_label("a", label)
    for seed in range(3):
        theirs = read_patch(tmp_path / "a.h5", PATCH, np.random.default_rng(seed))
        start = random_start(image.shape, PATCH, np.random.default_rng(seed))
        ours = cut(store.image("a"), start, PATCH)[0], cut(store.label("a"), start, PATCH)
        assert ours[0].dtype == theirs[0].dtype == np.float32
        np.testing.assert_allclose(ours[0], theirs[0], rtol=2**-11, atol=1e-6)
        np.testing.assert_array_equal(ours[1], theirs[1])
        assert theirs[1].any() and np.abs(theirs[0]).max() > 1


@pytest.mark.real
def test_the_peer_writes_as_the_published_files_are(real_data: Path, tmp_path: Path) -> None:
    published = next((real_data / "la2018" / "h5").rglob("*.h5"))
    image, label = read_case(published)
    write_case(tmp_path / "a.h5", image, label)
    with h5py.File(published) as theirs, h5py.File(tmp_path / "a.h5") as ours:
        for key in ("image", "label"):
            assert np.array_equal(ours[key][:], theirs[key][:])
            for what in ("dtype", "compression", "compression_opts"):
                assert getattr(ours[key], what) == getattr(theirs[key], what)
        assert ours["image"].chunks == theirs["image"].chunks
        stored = [
            sum(file[key].id.get_storage_size() for key in ("image", "label")) for file in (ours, theirs)
        ]
    assert stored[0] == pytest.approx(stored[1], rel=0.1)


@pytest.mark.real
def test_the_same_scores_on_a_real_atrium(real_data: Path) -> None:
    """Two classes: the atrium's halves. The prediction is shifted, eroded, and has an island."""
    reference = real_case(real_data)[1][::2, ::2, ::2]
    reference[:, :, reference.shape[2] // 2 :] *= 2
    prediction = np.roll(reference * ndimage.binary_erosion(reference > 0), (2, -1, 1), (0, 1, 2))
    prediction[2:5, 3:6, 2:4] = 1
    spacing = (1.25, 1.25, 2.0)
    ours = case_metrics(prediction, reference, 3, spacing)
    theirs = full_scores(prediction, reference, 3, spacing)
    assert [len(theirs), len(published_scores(prediction, reference, 3))] == [2, 2]
    for row, peer in zip(ours, theirs, strict=True):
        assert len(peer) == 8
        for name, value in peer.items():
            assert row[name] == pytest.approx(value, abs=1e-6), name
