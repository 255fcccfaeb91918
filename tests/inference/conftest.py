"""A stand-in method whose prediction is known at every voxel: the class nearest to the intensity."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semivox.inference.model import LoadedModel, load_model, save_model
from semivox.methods import METHODS, create
from semivox.methods.base import Method
from semivox.nets import NetFactory
from semivox.preprocessing.plan import Plan

VALUES = (0, 7, 300)


class Levels(Method):
    """Softmax of -sharpness * (intensity - class index)^2, on the mean of the channels."""

    class Config(Method.Config):
        sharpness: float = 20.0

    config: Config

    def build(self, net: NetFactory) -> None:
        self.levels = nn.Parameter(torch.arange(net.num_classes, dtype=torch.float32))
        self.register_buffer("steps", torch.tensor(0))

    def predict(self, image: Tensor) -> Tensor:
        levels = self.levels.view(1, -1, 1, 1, 1)
        return torch.softmax(-self.config.sharpness * (image.mean(1, keepdim=True) - levels) ** 2, dim=1)


class LevelsPair(Levels):
    """Two members: the right levels, and levels that are 0.8 too high."""

    predict = Method.predict

    def predict_members(self, image: Tensor) -> dict[str, Tensor]:
        return {"right": super().predict(image), "high": super().predict(image - 0.8)}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stand-ins known under `levels` and `levels_pair`."""
    module = ModuleType("semivox_stand_ins")
    module.Levels, module.LevelsPair = Levels, LevelsPair
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(METHODS, "levels", f"{module.__name__}:Levels")
    monkeypatch.setitem(METHODS, "levels_pair", f"{module.__name__}:LevelsPair")


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    def make(spacing_mm=(1.0, 2.0, 3.0), patch=(16, 16, 16), channels=("MR",), values=VALUES) -> Plan:
        return Plan(
            dataset="Blocks",
            channels=channels,
            class_names=("background", *(f"part {value}" for value in values[1:])),
            class_values=values,
            spacing_mm=spacing_mm,
            patch=patch,
            normalisation=("none",) * len(channels),
            crop="none",
            intensity=[{"mean": 0.0, "std": 1.0, "p005": -1.0, "p995": 1.0}] * len(channels),
            fingerprint={},
            reasons={},
        )

    return make


@pytest.fixture
def make_model(tmp_path: Path, make_plan: Callable[..., Plan]) -> Callable[..., LoadedModel]:
    """Build, save and load a stand-in; keywords are those of `make_plan`."""

    def make(name: str = "levels", *, folder: str = "run", sharpness: float = 20.0, **plan) -> LoadedModel:
        planned = make_plan(**plan)
        net = {"in_channels": len(planned.channels), "num_classes": len(planned.class_names)}
        options = {"sharpness": sharpness}
        method = create(name, options, NetFactory(**net))
        save_model(
            method, tmp_path / folder, method_name=name, options=options, net=net, plan=planned, extra={}
        )
        return load_model(tmp_path / folder, device="cpu")

    return make


@pytest.fixture
def blocks() -> Callable[..., np.ndarray]:
    """Return a maker of class indices 0, 1, 2 without any symmetry."""

    def make(shape=(14, 11, 9)) -> np.ndarray:
        label = np.zeros(shape, np.uint8)
        label[2:9, 3:6, 1:8] = 1
        label[7:12, 4:10, 5:7] = 2
        label[0, 0, 0] = 1
        return label

    return make


@pytest.fixture
def save_scan() -> Callable[..., Path]:
    """Write an array as NIfTI; the array's values are the intensities."""

    def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(array.astype(np.float32), np.diag([1, 2, 3, 1]) if affine is None else affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, path)
        return path

    return save
