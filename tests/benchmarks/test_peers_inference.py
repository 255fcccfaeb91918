"""The naive peers of inference give the same probabilities as ours, configured alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from peers.inference import PublishedWindows, whole_pass
from semivox.config import PredictConfig
from semivox.inference.windows import sliding_window, tiling
from semivox.methods import create
from semivox.nets import NetFactory

PATCH = (32, 32, 16)


@pytest.fixture(scope="module")
def pair():
    """The pair with running statistics that differ from those of a fresh network."""
    torch.manual_seed(0)
    method = create("supervised_pair", {}, NetFactory(1, 3, width=2))
    method.train()
    with torch.no_grad():
        for _ in range(3):
            method.predict(torch.randn(2, 1, *PATCH))
    return method.eval()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Longer than the patch, or as long: to shorter sides the published way adds zeros, ours the border."""
    return np.random.default_rng(0).normal(size=(1, 48, 32, 16)).astype(np.float32)


def ours(method, image, config) -> np.ndarray:
    window, stride = tiling(image.shape[1:], PATCH, config)
    return sliding_window(
        torch.from_numpy(image),
        method.predict,
        patch=window,
        stride=stride,
        weighting=config.weighting,
        batch=config.batch,
    ).numpy()


@pytest.mark.parametrize("batch", [1, 2])
def test_published_procedure(pair, image, batch):
    peer = PublishedWindows(image, [pair.net_a, pair.net_b], 3, PATCH, (9, 9, 2))
    label, probs = peer.run()
    assert len(peer.corners()) == 3
    found = ours(pair, image, PredictConfig(stride=(9, 9, 2), weighting="uniform", batch=batch))
    assert probs.shape == found.shape == (3, 48, 32, 16)
    np.testing.assert_allclose(found, probs, atol=1e-4)
    assert probs.std(axis=(1, 2, 3)).min() > 1e-3, "constant maps would prove nothing"
    assert (found.argmax(0) == label).mean() > 0.999


@pytest.mark.parametrize(
    ("shape", "patch", "stride", "count", "last"),
    [
        ((203, 142, 88), (112, 112, 80), (18, 18, 4), 7 * 3 * 3, (91, 30, 8)),
        ((240, 240, 155), (96, 96, 96), (64, 64, 64), 4 * 4 * 2, (144, 144, 59)),
    ],
)
def test_windows_of_a_left_atrium_and_of_a_brats_scan(shape, patch, stride, count, last):
    corners = PublishedWindows(np.zeros((1, *shape), np.float32), [], 2, patch, stride).corners()
    assert (len(corners), corners[-1]) == (count, last)


def test_whole_pass(pair, image):
    _, probs = whole_pass(image, [pair.net_a, pair.net_b], bf16=False, channels_last=False)
    np.testing.assert_allclose(ours(pair, image, PredictConfig(window="whole")), probs, atol=1e-4)
    assert probs.std(axis=(1, 2, 3)).min() > 1e-3
