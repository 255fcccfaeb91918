"""Training steps measured on made-up scans: `info --machine`, and the last column of `semivox plan`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semivox.config import Config, load_config, overridden, preset_names
from semivox.datasets.dataset import Dataset
from semivox.datasets.phantom import phantom
from semivox.datasets.splits import Split
from semivox.hardware import device_name, prefers_bf16, resolve_device
from semivox.io.geometry import Triple
from semivox.io.reader import machine_memory
from semivox.methods.cost import method_cost
from semivox.nets import NetFactory
from semivox.preprocessing.grids import strides_for
from semivox.preprocessing.plan import FIGURES, Plan
from semivox.preprocessing.workspace import Workspace
from semivox.progress import ProgressFactory, no_progress
from semivox.training.runs import batch_sizes, net_sizes, step_seconds

SCAN: Triple = (144, 144, 112)
_STEPS = 3  # and two more to warm up
_SPLIT = Split(labeled=("labeled",), unlabeled=("unlabeled",))
_NAMES = ("background", "foreground")


def machine(
    *,
    device: str = "auto",
    presets: Sequence[str] | None = None,
    limit_s: float = 100.0,
    progress: ProgressFactory = no_progress,
) -> dict[str, Any]:
    """Measure a training step of each preset on scans of one channel and one class in a temporary folder.

    Args:
        device: auto, cpu or gpu.
        presets: those to measure; None: all that are shipped.
        limit_s: no preset is begun that would probably take longer than what is left of this time.
        progress: shows the progress.

    Returns:
        `device`, `precision`, `threads`, `memory_gb`, `torch`; in `presets` the `step_s` of a step and the
        `hours` of all training steps: None where the patch depends on the scans, or time did not suffice.
    """
    until, where = time.perf_counter() + limit_s, resolve_device(device)
    asked = {"train": {"device": device, "workers": 0}}
    configs = [overridden(load_config(preset=one), asked) for one in presets or preset_names()]
    fixed = {_kind(config): config for config in configs if config.plan.patch}
    steps, costs, rate = dict[Any, float](), dict[Any, int](), 0.0
    for kind, config in fixed.items():
        costs[kind] = sum(batch_sizes(config)) * _macs(_plan(config.plan.patch), config)
    with tempfile.TemporaryDirectory() as folder, progress("machine") as report:
        workspace = _made_up(Path(folder))
        for done, kind in enumerate(sorted(fixed, key=lambda kind: costs[kind]), start=1):
            left_s, config = until - time.perf_counter(), fixed[kind]
            if rate * costs[kind] * (_STEPS + 2) <= left_s or not steps:
                run = workspace, _SPLIT, _plan(config.plan.patch), config
                steps[kind] = step_seconds(*run, steps=_STEPS, limit_s=left_s)
                rate = steps[kind] / costs[kind]
            report(done, len(fixed), config.preset or "")
    memory = machine_memory()
    return {
        "device": device_name(where), "precision": "bf16" if prefers_bf16(where) else "32",
        "threads": torch.get_num_threads(), "torch": torch.__version__,
        "memory_gb": None if memory is None else round(memory / 1e9, 1),
        "presets": [_row(config, steps.get(_kind(config))) for config in configs],
    }  # fmt: skip


def _kind(config: Config) -> tuple[Any, ...]:
    """What the time of a step depends on; presets that differ in the weights of terms are alike."""
    net, augment = repr(config.net.shared()), config.train.augment
    return config.method.name, net, config.plan.patch, batch_sizes(config), augment


def _row(config: Config, step_s: float | None) -> dict[str, Any]:
    iterations = config.train.iterations
    return {
        "preset": config.preset, "method": config.method.name, "patch": config.plan.patch,
        "patches": sum(batch_sizes(config)), "iterations": iterations, "step_s": step_s,
        "hours": None if step_s is None else step_s * iterations / 3600,
    }  # fmt: skip


def grid_steps(config: Config, plan: Plan, *, limit_s: float = 20.0) -> list[float]:
    """Forecast the seconds of a training step on each of `plan.grids`.

    A step with the plan's own patch is measured on the made-up scans of one channel and one class; the other
    grids, channels and classes follow by the arithmetic of the method's networks.
    """
    config = overridden(config, {"train": {"workers": 0}})
    own = _plan(plan.patch, stem=plan.stem, strides=plan.strides)
    with tempfile.TemporaryDirectory() as folder:
        step_s = step_seconds(_made_up(Path(folder)), _SPLIT, own, config, steps=_STEPS, limit_s=limit_s)
    rate, times = step_s / _macs(own, config), []
    for row in plan.grids:
        patch, stem = tuple(row["patch"]), tuple(row["stem"])
        strides = strides_for(patch, stem, np.divide(row["spacing_mm"], stem))
        there = plan.model_copy(update={"patch": patch, "stem": stem, "strides": strides})
        times.append(rate * _macs(there, config))
    return times


def _plan(patch: Any, **network: Any) -> Plan:
    return Plan(
        dataset="phantoms", channels=("MR",), class_names=_NAMES, class_values=(0, 1), patch=patch,
        spacing_mm=(1.0, 1.0, 1.0), normalisation=("none",), crop="none",
        intensity=(dict.fromkeys(FIGURES, 0.0),), **network,
    )  # fmt: skip


def _macs(plan: Plan, config: Config) -> int:
    """Count the multiply-accumulates of a step with one patch."""
    net = NetFactory(**net_sizes(plan, config))
    return method_cost(config.method.name, config.method.options, net, plan.patch).step.macs


def _made_up(folder: Path) -> Workspace:
    """Write two cases, the same phantom side by side until it is as large as a heart's scan."""
    workspace = Workspace(folder, Dataset("phantoms", folder, ("MR",), _NAMES, (0, 1), cases=()))
    image, label, _ = phantom(0)
    more = [(0, size - side) for size, side in zip(SCAN, image.shape, strict=True)]
    image = np.pad((image - image.mean()) / image.std(), more, mode="wrap").astype(np.float32)
    for name in _SPLIT.roles():
        workspace.store.write_image(name, image[None], {})
    workspace.store.write_label("labeled", np.pad(label, more, mode="wrap"))
    return workspace
