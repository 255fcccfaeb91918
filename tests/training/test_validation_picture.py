"""The picture of a validation case in TensorBoard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semivox.training.logs import RunLog
from semivox.training.validation import tinted_slice


def test_reference_left_prediction_right_front_up() -> None:
    """A block at the patient's front right appears at the upper left of each half."""
    image = np.random.default_rng(0).normal(size=(40, 40, 4)).astype(np.float32)
    truth, found = np.zeros((2, 40, 40, 4), int)
    truth[30:, 30:, 2] = 1
    found[:10, :10, 2] = 2
    pixels = np.asarray(Image.open(io.BytesIO(tinted_slice(image, (truth, found), (1, 1, 5)))), int)
    zoom = pixels.shape[0] // 40
    assert pixels.shape == (40 * zoom, 80 * zoom, 3) and pixels.shape[0] >= 256
    red, blue = pixels[..., 0] - pixels[..., 2] > 40, pixels[..., 2] - pixels[..., 0] > 40
    assert red[: 10 * zoom, : 10 * zoom].all() and red.sum() == (10 * zoom) ** 2
    assert blue[30 * zoom :, 70 * zoom :].all() and blue.sum() == (10 * zoom) ** 2


def test_tensorboard_shows_it(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.picture(5, tinted_slice(np.ones((8, 8, 8), np.float32), (np.ones((8, 8, 8), int),), (1, 1, 1)))
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    (event,) = events.Images("val/reference_and_prediction")
    assert event.step == 5 and event.encoded_image_string[1:4] == b"PNG"
