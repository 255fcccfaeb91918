"""The ways of segmenting a scan that `inference.py` compares, with the same random weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from importlib.util import find_spec
from io import StringIO
from types import SimpleNamespace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from peers.inference import PublishedWindows, Triple, whole_pass
from semivox.config import PredictConfig
from semivox.hardware import has_bf16
from semivox.inference.model import LoadedModel, lean
from semivox.inference.predictor import predict_case
from semivox.io.geometry import foreground_box
from semivox.io.volume import Volume
from semivox.methods import create
from semivox.methods.base import Method
from semivox.nets import NetFactory
from semivox.nets.cpu import kept
from semivox.preprocessing.plan import Plan

CPU = torch.device("cpu")
PUBLISHED = "published procedure, fp32"
HALF = has_bf16(CPU)  # without the instructions bf16 is many times slower, and nobody would choose it
LAST = "bf16" if HALF else "fp32"
WHOLE_32, WHOLE_LAST = "one whole pass, fp32", f"one whole pass, {LAST}, channels last"
MONAI = f"MONAI SlidingWindowInferer, same windows, {LAST}"
NNUNET = "nnU-Net's predictor, step 0.5, no mirroring"
STRIDE, DEFAULT, WHOLE = "ours, published stride", "ours, default", "ours, --window whole"


class Bench:
    """All ways of segmenting one scan with the same weights.

    Args:
        array: (C, X, Y, Z), z-scored.
        patch, stride: of the published procedure.
        width: of the networks.
        windows: how many of the published windows are run.
        crop: of the plan that ours follows, and of nnU-Net's preparation; the other ways take the whole scan.
    """

    def __init__(
        self,
        array: NDArray[np.float32],
        patch: Triple,
        stride: Triple,
        width: int,
        windows: int,
        crop: Literal["none", "foreground"],
    ) -> None:
        torch.manual_seed(0)
        channels, self.patch, self.stride, self.crop = len(array), patch, stride, crop
        self.naive = create("supervised_pair", {}, NetFactory(channels, 2, width=width)).eval()
        self.image = array
        self.published = self._published(array)
        part = (*patch[:2], patch[2] + (windows - 1) * stride[2])
        part_x, part_y, part_z = (min(a, b) for a, b in zip(part, array.shape[1:], strict=True))
        self.part = array[:, :part_x, :part_y, :part_z]
        self.share = len(self._published(self.part).corners()) / len(self.published.corners())
        self.last = deepcopy(self.naive).to(memory_format=torch.channels_last_3d)
        ours = deepcopy(self.naive)
        lean(ours, CPU)
        self.model = LoadedModel(ours, self._plan(channels), {}, CPU, "")

    def ways(self) -> dict[str, Callable[[], object]]:
        """Each way, by name; those in `partial` run a share of their windows."""
        optional = {NNUNET: self._nnunet} if find_spec("nnunetv2") else {}
        return {
            PUBLISHED: lambda: self._published(self.part).run(),
            STRIDE: lambda: self._ours(self.part, stride=self.stride, weighting="uniform"),
            MONAI: self._monai,
            WHOLE_32: lambda: self._whole(self.naive, bf16=False),
            WHOLE_LAST: lambda: self._whole(self.last, bf16=HALF),
            WHOLE: lambda: self._ours(self.image, window="whole"),
            DEFAULT: lambda: self._ours(self.image),
            **optional,
        }

    partial = (PUBLISHED, STRIDE, MONAI)

    def _published(self, array: NDArray[np.float32]) -> PublishedWindows:
        return PublishedWindows(array, nets(self.naive), 2, self.patch, self.stride)

    def _whole(self, method: Method, *, bf16: bool) -> object:
        return whole_pass(self.image, nets(method), bf16=bf16, channels_last=method is self.last)

    def _ours(self, array: NDArray[np.float32], **settings: object) -> object:
        volume = Volume(array, np.eye(4))
        with kept():  # as `predict` does, though for all scans together
            return predict_case(self.model, volume, PredictConfig(**settings)).label

    def _monai(self) -> object:
        from monai.inferers import SlidingWindowInferer

        overlap = [1 - (step + 0.5) / side for step, side in zip(self.stride, self.patch, strict=True)]
        # MONAI rounds the step down
        inferer = SlidingWindowInferer(self.patch, sw_batch_size=2, overlap=overlap)
        image = torch.from_numpy(np.ascontiguousarray(self.part))[None]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=HALF):
            return inferer(image, self.naive.predict)[0].argmax(0)

    def _nnunet(self) -> NDArray[np.int64]:
        """Its windows, Gaussian weights and float32 on a CPU; it averages what `predict` returns."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        with redirect_stdout(StringIO()):
            predictor = nnUNetPredictor(use_mirroring=False, device=CPU, allow_tqdm=False)
        predictor.network = Predicting(self.naive)
        predictor.configuration_manager = SimpleNamespace(patch_size=self.patch)
        predictor.label_manager = SimpleNamespace(num_segmentation_heads=2)
        image = torch.from_numpy(self._cropped())
        logits = predictor.predict_sliding_window_return_logits(image)
        return logits.argmax(0).numpy()

    def _cropped(self) -> NDArray[np.float32]:
        if self.crop == "none":
            return self.image
        first, last, _ = foreground_box(self.image)
        box = tuple(slice(*ends) for ends in zip(first, last, strict=True))
        return np.ascontiguousarray(self.image[:, *box])

    def _plan(self, channels: int) -> Plan:
        return Plan(
            dataset="benchmark",
            channels=tuple(f"channel {index}" for index in range(channels)),
            class_names=("background", "object"),
            class_values=(0, 1),
            spacing_mm=(1.0, 1.0, 1.0),
            patch=self.patch,
            normalisation=("none",) * channels,
            crop=self.crop,
            intensity=[{"mean": 0.0, "std": 1.0, "p005": -1.0, "p995": 1.0}] * channels,
            fingerprint={},
            reasons={},
        )


class Predicting(torch.nn.Module):
    """A pair as the network of another tool."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.method.predict(image)


def nets(method: Method) -> list[torch.nn.Module]:
    """Networks A and B of a pair."""
    return [method.net_a, method.net_b]
