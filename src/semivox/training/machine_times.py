"""The single measurements of `info --machine`, on made-up scans."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from semivox.config import Config
from semivox.datasets.dataset import Dataset
from semivox.datasets.phantom import phantom
from semivox.datasets.splits import Split
from semivox.hardware import prefers_bf16
from semivox.methods import create
from semivox.methods.cost import method_cost
from semivox.nets import NetFactory, build_net
from semivox.nets.heap import kept
from semivox.patches.augment import make_augment
from semivox.patches.loaders import Patches
from semivox.patches.patch_sizes import PatchSizes
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store
from semivox.preprocessing.workspace import Workspace
from semivox.training.assemble import Training, batch_sizes

Triple = tuple[int, int, int]
M = TypeVar("M", bound=torch.nn.Module)

SCAN: Triple = (144, 144, 112)
NET_BATCH = 2
_CASES = ("labeled", "unlabeled")
_STEPS = 4  # a probe takes two more to warm up
_ROUNDS = 8  # patches read
_LONG_S = 5.0


@dataclass(frozen=True)
class Times:
    """Of one kind of preset; costs in multiply-accumulates."""

    step_s: float
    window_s: float
    cost: float
    window_cost: float
    measured: bool


def _factory(config: Config) -> NetFactory:
    return NetFactory(in_channels=1, num_classes=2, **config.net.model_dump())


def step_cost(config: Config) -> float:
    """Multiply-accumulates to predict the patches of a mean step: it takes about as many times longer."""
    share, sizes = config.train.final_share, _sizes(config)
    first, final = (_window_cost(config, size) for size in (sizes.first, _window(config)))
    return ((1 - share) * first + share * final) * sum(batch_sizes(config))


def _sizes(config: Config) -> PatchSizes:
    assert config.plan.patch is not None
    return PatchSizes(config.plan.patch, config.plan.final_patch if config.train.final_share else None)


def _window(config: Config) -> Triple:
    """The windows of a prediction are as large as the last patches of the training."""
    sizes = _sizes(config)
    return sizes.final or sizes.first


def _window_cost(config: Config, size: Triple) -> float:
    return float(method_cost(config.method.name, config.method.options, _factory(config), size).macs)


def write_scans(folder: Path) -> Store:
    """Two cases, the same phantom side by side until it is as large as a heart's scan."""
    image, label, _ = phantom(0)
    times = [-(-size // side) for size, side in zip(SCAN, image.shape, strict=True)]
    part = tuple(slice(size) for size in SCAN)
    large = np.tile((image - image.mean()) / image.std(), times)[part].astype(np.float32)
    store = Store(folder)
    for name in _CASES:
        store.write_image(name, large[None], {})
    store.write_label(_CASES[0], np.tile(label, times)[part])
    return store


@kept()
def preset_time(
    folder: Path, config: Config, device: torch.device, known: Sequence[Times], left_s: float
) -> Times:
    """Measure a preset, or conclude from the last, cheaper one of `known` where too little time is left."""
    steps, window = step_cost(config), _window_cost(config, _window(config))
    if known:
        rate, window_rate = known[-1].step_s / known[-1].cost, known[-1].window_s / known[-1].window_cost
        if (_STEPS + 2) * rate * steps > left_s:
            return Times(rate * steps, window_rate * window, steps, window, measured=False)
    step_s = _training(folder, config).step_seconds(steps=_STEPS, limit_s=max(left_s / 2, 0.0))
    method = _laid_out(create(config.method.name, config.method.options, _factory(config)), device)
    image = torch.randn(1, 1, *_window(config), device=device)
    with torch.no_grad():
        window_s = _seconds(lambda: method.eval().predict(image), device)
    return Times(step_s, window_s, steps, window, measured=True)


def _training(folder: Path, config: Config) -> Training:
    """A run on the made-up scans that is never begun."""
    sizes = _sizes(config)
    names = ("background", "foreground")
    dataset = Dataset("phantoms", folder, ("MR",), names, (0, 1), cases=())
    plan = Plan(
        dataset=dataset.name,
        channels=dataset.channels,
        class_names=names,
        class_values=(0, 1),
        spacing_mm=(1.0, 1.0, 1.0),
        patch=sizes.first,
        final_patch=sizes.final,
        normalisation=("none",),
        crop="none",
        intensity=(dict.fromkeys(("mean", "std", "p005", "p995"), 0.0),),
    )
    split = Split(labeled=_CASES[:1], unlabeled=_CASES[1:])
    return Training(Workspace(folder, dataset), split, plan, config)


@kept()
def net_times(name: str, patch: Triple, device: torch.device) -> tuple[float, float]:
    """Seconds of a forward and backward pass of `NET_BATCH` patches, and of a forward pass of one."""
    net = _laid_out(build_net(name, in_channels=1, num_classes=2), device)
    images = torch.randn(NET_BATCH, 1, *patch, device=device)

    def step() -> None:
        net.zero_grad()
        net(images).float().square().mean().backward()

    step_s = _seconds(step, device)
    with torch.no_grad():
        return step_s, _seconds(lambda: net.eval()(images[:1]), device)


def _laid_out(module: M, device: torch.device) -> M:
    """On the device, in the memory layout of training."""
    return module.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def _seconds(run: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median time in the precision of training, after one call to warm up; fewer where they take long."""
    times = []
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=prefers_bf16(device)):
        for _ in range(repeats + 1):
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
            if len(times) > 1 and sum(times) > _LONG_S:
                break
    return statistics.median(times[1:])


def patches_per_second(store: Store, patch: Triple, augment: Any) -> float:
    """Labeled patches of `store`, half of them around the foreground, that one process reads and augments."""
    patches = Patches(
        _CASES[:1],
        store.image,
        PatchSizes(patch),
        make_augment(augment),
        read_label=store.label,
        read_foreground=store.foreground_voxels,
        foreground_share=0.5,
    )
    patches.sample(0, 0, 0)
    started = time.perf_counter()
    for index in range(_ROUNDS):
        patches.sample(0, index, 1)
    return _ROUNDS / (time.perf_counter() - started)
