"""The table, the events with a picture of a validation case, and what is printed."""

from __future__ import annotations

import io
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from engine_toy import loaders_for, make_toy, score, settings
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semivox.errors import UserError
from semivox.methods.base import Batch, Step
from semivox.training.checkpoints import last_path, load
from semivox.training.logs import MetricsTable, RunLog
from semivox.training.loop import fit
from semivox.training.validation import tinted_slice


def test_a_late_column_widens_the_table(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsTable(path, 0)
    table.write({"iteration": 1, "loss": 0.5})
    table.write({"iteration": 2, "loss": 0.25, "val_dice": 0.75})
    table.write({"iteration": 1234567, "loss": 1 / 3})
    assert path.read_text() == "iteration,loss,val_dice\n1,0.5,\n2,0.25,0.75\n1234567,0.333333,\n"


def test_reopening_drops_later_and_unfinished_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,loss,val_dice\n1,0.5,\n2,0.25,0.75\n3,0.125,\n4,0.1")
    table = MetricsTable(path, 2)
    table.write({"iteration": 3, "loss": 0.126})
    assert list(pd.read_csv(path)["loss"]) == [0.5, 0.25, 0.126]
    assert path.read_text().splitlines()[0] == "iteration,loss,val_dice"
    MetricsTable(path, 0)
    assert path.read_text() == ""


def events(folder: Path, tag: str) -> dict[int, float]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return {event.step: event.value for event in found.Scalars(tag)}


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for iteration in (1, 2, 3):
        log.write({"iteration": iteration, "loss": iteration / 4, "val_dice": 0.5})
    log.close()
    assert events(tmp_path / "tensorboard", "train/loss") == {1: 0.25, 2: 0.5, 3: 0.75}
    log = RunLog(tmp_path, 2)
    log.write({"iteration": 3, "loss": 8.0})
    log.close()
    assert events(tmp_path / "tensorboard", "train/loss") == {1: 0.25, 2: 0.5, 3: 8.0}
    assert events(tmp_path / "tensorboard", "val/dice") == {1: 0.5, 2: 0.5}


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
    found = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    (event,) = found.Images("val/reference_and_prediction")
    assert event.step == 5 and event.encoded_image_string[1:4] == b"PNG"


def test_training_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(iterations=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        fit(make_toy(), loaders_for(config), config, tmp_path, validate=score)
    assert [str(warning.message) for warning in caught] == []
    assert caplog.records == []
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "logs"]


def test_away_from_a_terminal_a_line_each_tenth(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = settings(iterations=40, budget_s=500.0)
    fit(make_toy(), loaders_for(config), config, tmp_path, bar=True)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[4].startswith("training: 20/40  loss ") and " supervised 0." in lines[4]
    assert lines[4].endswith(" left")
    forecast = pd.read_csv(tmp_path / "logs" / "metrics.csv").set_index("iteration")
    assert forecast.loc[40, "forecast_s"] == pytest.approx(forecast.loc[40, "seconds"], abs=0.06)
    assert forecast.loc[20, "forecast_s"] == pytest.approx(2 * forecast.loc[20, "seconds"], abs=0.06)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 60 kB."""
    folder = tmp_path / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60k", "tmpfs", folder], check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("left", [0, 4096, 8192, 24576])
def test_a_full_disk_is_one_message_and_keeps_the_checkpoint(
    full: Path, left: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever it fills up: in the table, the events or the checkpoint."""
    config = settings(iterations=400, log_every=1, checkpoint_every=50, validate_every=400)
    toy = make_toy()

    def fill(labeled: Batch, unlabeled: Batch, step: Step) -> None:
        if step.iteration == 70:
            free = shutil.disk_usage(full).free
            (full / "filling").write_bytes(bytes(max(0, free - left)))

    toy.hook = fill
    with pytest.raises(UserError, match="The disk is full") as error:
        fit(toy, loaders_for(config), config, full / "run")
    assert "resumes" in str(error.value.do)
    assert load(last_path(full / "run")).iteration >= 50
    assert "Traceback" not in capfd.readouterr().err
