"""`info --machine`: how quick this machine is, and how long the shipped presets would train on it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from semivox.config import Config, load_config, overridden, preset_names
from semivox.datasets.dataset import Dataset
from semivox.datasets.phantom import phantom
from semivox.datasets.splits import Split
from semivox.hardware import device_name, prefers_bf16, resolve_device
from semivox.io.geometry import Triple
from semivox.io.reader import machine_memory
from semivox.methods import create
from semivox.methods.cost import method_cost, patch_divisor, without_memory
from semivox.nets import NETS, NetFactory, build_net
from semivox.nets.cpu import kept
from semivox.patches.augment import full_deformation, make_augment
from semivox.patches.sampling import Patches
from semivox.preprocessing.grids import strides_for
from semivox.preprocessing.plan import FIGURES, Plan
from semivox.preprocessing.store import Store
from semivox.preprocessing.workspace import Workspace
from semivox.progress import ProgressFactory, no_progress
from semivox.training.runs import batch_sizes, net_sizes, step_seconds

M = TypeVar("M", bound=torch.nn.Module)

NET_PATCH, NET_BATCH = (64, 64, 48), 2
SCAN: Triple = (144, 144, 112)
_CASES = ("labeled", "unlabeled")
_STEPS, _ROUNDS, _LONG_S = 4, 8, 5.0  # a probe takes two steps more to warm up; patches read


class Times(NamedTuple):
    """Seconds of a training step and of the prediction of a window, and the arithmetic of each."""

    step_s: float
    window_s: float
    step_macs: float
    window_macs: float
    measured: bool


def machine(
    *,
    device: str = "auto",
    presets: Sequence[str] | None = None,
    net_patch: Triple = NET_PATCH,
    limit_s: float = 100.0,
    progress: ProgressFactory = no_progress,
) -> dict[str, Any]:
    """Measure this machine on made-up scans of one channel and one class in a temporary folder.

    Args:
        device: auto, cpu or gpu.
        presets: those to forecast; None: all that are shipped.
        net_patch: for the times of the networks.
        limit_s: after this time nothing more is measured; the cheapest preset always is.
        progress: shows the progress.

    Returns:
        `device`, `precision`, `threads`, `memory_gb`, `torch`, `seconds`; in `nets`, of width 16, the
        `step_s` of a forward and backward pass of two patches of `net_patch` voxels and the `window_s` of a
        forward pass of one; in `store` how many labeled patches one worker process reads and augments
        `per_second`; in `presets` the same seconds, and the `hours` of the training steps alone. These are
        not `measured` where time did not suffice: then they follow from another preset's by the arithmetic
        of their networks. They are None where the patch depends on the scans.
    """
    started, where = time.perf_counter(), resolve_device(device)
    asked = {"train": {"device": device, "workers": 0}}
    configs = [overridden(load_config(preset=one), asked) for one in presets or preset_names()]
    kinds = {_kind(one): one for one in configs if one.plan.patch}
    total, known = len(NETS) + len(kinds), dict[Any, Times]()
    with tempfile.TemporaryDirectory() as folder, progress("machine") as report:
        store, nets = write_scans(Path(folder) / "store"), []
        for name in NETS:
            step_s, window_s = net_times(name, net_patch, where)
            nets.append({"net": name, "step_s": step_s, "window_s": window_s})
            report(len(nets), total, name)
        for kind in sorted(kinds, key=lambda kind: step_macs(kinds[kind])):
            left = limit_s - (time.perf_counter() - started)
            known[kind] = preset_time(Path(folder), kinds[kind], where, list(known.values()), left)
            report(len(nets) + len(known), total, kinds[kind].preset or "")
        readings = []
        for patch, augment in sorted({(o.plan.patch, o.train.augment) for o in configs if o.plan.patch}):
            rate = round(patches_per_second(store, patch, augment), 1)
            readings.append({"patch": patch, "augment": augment, "per_second": rate})
    memory = machine_memory()
    return {
        "device": device_name(where), "precision": "bf16" if prefers_bf16(where) else "32",
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        "net_patch": net_patch, "nets": nets, "store": readings,
        "presets": [_forecast(config, known.get(_kind(config))) for config in configs],
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def _kind(config: Config) -> tuple[Any, ...]:
    """What the time of a step depends on; presets that differ in the weights of terms are alike."""
    net, augment = repr(config.net.shared()), config.train.augment
    return config.method.name, net, config.plan.patch, batch_sizes(config), augment


def _forecast(config: Config, found: Times | None) -> dict[str, Any]:
    iterations = config.train.iterations
    return {
        "preset": config.preset, "method": config.method.name, "patch": config.plan.patch,
        "patches": sum(batch_sizes(config)), "iterations": iterations,
        "step_s": found and found.step_s, "window_s": found and found.window_s,
        "hours": found and found.step_s * iterations / 3600,
        "measured": found is not None and found.measured,
    }  # fmt: skip


def _factory(config: Config) -> NetFactory:
    return NetFactory(in_channels=1, num_classes=2, **config.net.shared())


def _window_macs(config: Config) -> float:
    assert config.plan.patch is not None
    name, options = config.method.name, config.method.options
    return float(method_cost(name, options, _factory(config), config.plan.patch).predicting.macs)


def step_macs(config: Config) -> float:
    """Count the multiply-accumulates to predict the patches of a step: its time is in proportion."""
    return _window_macs(config) * sum(batch_sizes(config))


def write_scans(folder: Path) -> Store:
    """Write two cases, the same phantom side by side until it is as large as a heart's scan."""
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
    macs = step_macs(config), _window_macs(config)
    if known:
        rate, window_rate = known[-1].step_s / known[-1].step_macs, known[-1].window_s / known[-1].window_macs
        if (_STEPS + 2) * rate * macs[0] > left_s:
            return Times(rate * macs[0], window_rate * macs[1], *macs, measured=False)
    assert config.plan.patch is not None
    step_s = step_seconds(*_made_up_run(folder, config), steps=_STEPS, limit_s=max(left_s / 2, 0.0))
    method = _laid_out(create(config.method.name, config.method.options, _factory(config)), device)
    image = torch.randn(1, 1, *config.plan.patch, device=device)
    with torch.no_grad():
        window_s = _seconds(lambda: method.eval().predict(image), device)
    return Times(step_s, window_s, *macs, measured=True)


def _made_up_run(
    folder: Path, config: Config, like: Plan | None = None
) -> tuple[Workspace, Split, Plan, Config]:
    """Return the parts of a run on the made-up scans that is never begun, with the network of `like`."""
    names = ("background", "foreground")
    dataset = Dataset("phantoms", folder, ("MR",), names, (0, 1), cases=())
    network: dict[str, Any] = {"patch": config.plan.patch}
    if like is not None:
        network = {"patch": like.patch, "stem": like.stem, "strides": like.strides}
    plan = Plan(
        dataset=dataset.name, channels=dataset.channels, class_names=names, class_values=(0, 1),
        spacing_mm=(1.0, 1.0, 1.0), normalisation=("none",), crop="none",
        intensity=(dict.fromkeys(FIGURES, 0.0),), **network,
    )  # fmt: skip
    return Workspace(folder, dataset), Split(labeled=_CASES[:1], unlabeled=_CASES[1:]), plan, config


@kept()
def grid_steps(config: Config, plan: Plan, *, limit_s: float = 20.0) -> list[float]:
    """Forecast the seconds of a training step on each of `plan.grids`.

    A step with the plan's own patch is measured on the made-up scans of one channel and one class; the other
    grids, channels and classes follow by the arithmetic of the method's networks.
    """
    config = overridden(config, {"train": {"workers": 0}})
    kind, options = config.method.name, config.method.options

    def macs(made: Plan) -> int:
        net = NetFactory(**net_sizes(made, config))
        patch = made.fitted(patch_divisor(without_memory(kind, options, net))).patch
        return method_cost(kind, options, net, patch).step.macs

    with tempfile.TemporaryDirectory() as folder:
        write_scans(Path(folder) / "store")
        run = _made_up_run(Path(folder), config, plan)
        rate = step_seconds(*run, steps=2, limit_s=limit_s) / macs(run[2])
    times = []
    for row in plan.grids:
        patch, stem = tuple(row["patch"]), tuple(row["stem"])
        strides = strides_for(patch, stem, np.divide(row["spacing_mm"], stem))
        times.append(rate * macs(plan.model_copy(update={"patch": patch, "stem": stem, "strides": strides})))
    return times


@kept()
def net_times(name: str, patch: Triple, device: torch.device) -> tuple[float, float]:
    """Measure a forward and backward pass of `NET_BATCH` patches, and a forward pass of one, in seconds."""
    net = _laid_out(build_net(name, in_channels=1, num_classes=2), device)
    images = torch.randn(NET_BATCH, 1, *patch, device=device)

    def step() -> None:
        net.zero_grad()
        net(images).float().square().mean().backward()

    step_s = _seconds(step, device)
    with torch.no_grad():
        return step_s, _seconds(lambda: net.eval()(images[:1]), device)


def _laid_out(module: M, device: torch.device) -> M:
    """Move to the device, in the memory layout of training."""
    return module.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return]


def _seconds(run: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median time in the precision of training, after one call to warm up; fewer where they take long."""
    times: list[float] = []
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=prefers_bf16(device)):
        while len(times) <= repeats and (len(times) < 2 or sum(times) <= _LONG_S):
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def patches_per_second(store: Store, patch: Triple, augment: Any) -> float:
    """Measure the labeled patches, half of them around the foreground, that a process reads and augments."""
    change, deformation = make_augment(augment), full_deformation(augment, (1.0, 1.0, 1.0))
    how: dict[str, Any] = {"truth": store, "foreground_share": 0.5, "deformation": deformation}
    patches = Patches(_CASES[:1], store, patch, change, **how)
    patches.sample(0, 0, 0)
    started = time.perf_counter()
    for index in range(_ROUNDS):
        patches.sample(0, index, 1)
    return _ROUNDS / (time.perf_counter() - started)
