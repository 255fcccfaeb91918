"""The whole way on real scans, with a prediction that numpy can repeat."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from semivox.config import PredictConfig
from semivox.inference.predict import predict_files


@pytest.mark.real
def test_hippocampus(real_data, make_model, tmp_path):
    """No resampling is needed (1 mm), so each voxel has to get the class of the nearest level."""
    files = sorted((real_data / "hippocampus" / "imagesTs").glob("*.nii.gz"))[:3]
    folder = tmp_path / "scans"
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file)
    model = make_model(spacing_mm=(1.0, 1.0, 1.0), patch=(32, 48, 32), sharpness=1e-3, values=(0, 1, 2))
    levels = np.array([100.0, 500.0, 900.0], np.float32)
    with torch.no_grad():
        model.method.levels.copy_(torch.from_numpy(levels))
    written = predict_files(model, folder, tmp_path / "out", PredictConfig(), save_probabilities=True)
    assert [file.name for file in written] == [file.name for file in files]
    for file, prediction in zip(files, written, strict=True):
        source, result = nib.load(file), nib.load(prediction)
        assert result.shape == source.shape
        np.testing.assert_array_equal(result.affine, source.affine)
        intensity = source.get_fdata(dtype=np.float32)
        expected = np.abs(intensity[..., None] - levels).argmin(-1)
        assert (np.asarray(result.dataobj) == expected).mean() > 0.9999
        assert len(np.unique(expected)) == 3
        with np.load(prediction.with_name(prediction.name.replace(".nii.gz", ".npz"))) as stored:
            np.testing.assert_allclose(stored["probabilities"].astype(np.float32).sum(0), 1, atol=2e-3)
