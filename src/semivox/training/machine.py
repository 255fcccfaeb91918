"""`info --machine`: how quick this machine is, and how long the shipped presets would train on it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from semivox.config import Config, load_config, preset_names
from semivox.hardware import device_name, prefers_bf16, resolve_device
from semivox.io.memory import machine_memory
from semivox.nets import NETS
from semivox.progress import ProgressFactory, no_progress
from semivox.training.assemble import batch_sizes
from semivox.training.machine_times import (
    Times,
    Triple,
    net_times,
    patches_per_second,
    preset_time,
    step_cost,
    write_scans,
)
from semivox.training.train import overridden

NET_PATCH: Triple = (64, 64, 48)


@dataclass(frozen=True)
class NetTime:
    """Seconds of a forward and backward pass of two patches, and of a forward pass of one."""

    net: str
    step_s: float
    window_s: float


@dataclass(frozen=True)
class Reading:
    """How many labeled patches one worker process gives, augmentation included."""

    patch: Triple
    augment: str
    per_second: float


@dataclass(frozen=True)
class Forecast:
    """A preset: its step, the prediction of one window, the hours of its training steps alone.

    `measured` is False where time did not suffice: then both times follow from another preset's by the
    multiply-accumulates of their networks. All are None where the patch depends on the scans.
    """

    preset: str
    method: str
    patch: Triple | None
    patches: int
    iterations: int
    step_s: float | None = None
    window_s: float | None = None
    hours: float | None = None
    measured: bool = False


@dataclass(frozen=True)
class Machine:
    """What was measured; sizes in voxels, one channel, one class, networks of width 16 in `nets`."""

    device: str
    precision: str
    threads: int
    memory_gb: float | None
    torch: str
    net_patch: Triple
    nets: tuple[NetTime, ...]
    store: tuple[Reading, ...]
    presets: tuple[Forecast, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Give plain data."""
        return asdict(self)


def machine(
    *,
    device: str = "auto",
    presets: Sequence[str] | None = None,
    net_patch: Triple = NET_PATCH,
    limit_s: float = 100.0,
    progress: ProgressFactory = no_progress,
) -> Machine:
    """Measure this machine on made-up scans in a temporary folder.

    Args:
        device: auto, cpu or gpu.
        presets: those to forecast; None: all that are shipped.
        net_patch: for the times of the networks.
        limit_s: after this time nothing more is measured; the cheapest preset always is.
        progress: shows the progress.
    """
    started, where = time.perf_counter(), resolve_device(device)
    configs = [
        overridden(load_config(preset=name), {"train": {"device": device, "workers": 0}})
        for name in (preset_names() if presets is None else presets)
    ]
    kinds = {_kind(one): one for one in configs if one.plan.patch}
    order = sorted(kinds, key=lambda kind: step_cost(kinds[kind]))
    total, known = len(NETS) + len(kinds), dict[Any, Times]()
    with tempfile.TemporaryDirectory() as folder, progress("machine") as report:
        store, nets = write_scans(Path(folder) / "store"), []
        for name in NETS:
            nets.append(NetTime(name, *net_times(name, net_patch, where)))
            report(len(nets), total, name)
        for kind in order:
            left = limit_s - (time.perf_counter() - started)
            known[kind] = preset_time(Path(folder), kinds[kind], where, list(known.values()), left)
            report(len(nets) + len(known), total, kinds[kind].preset or "")
        patches = sorted({(one.plan.patch, one.train.augment) for one in configs if one.plan.patch})
        readings = [
            Reading(patch, augment, round(patches_per_second(store, patch, augment), 1))
            for patch, augment in patches
            if patch
        ]
    memory = machine_memory()
    return Machine(
        device=device_name(where),
        precision="bf16" if prefers_bf16(where) else "32",
        threads=torch.get_num_threads(),
        memory_gb=None if memory is None else round(memory / 1e9, 1),
        torch=torch.__version__,
        net_patch=net_patch,
        nets=tuple(nets),
        store=tuple(readings),
        presets=tuple(_forecast(config, known.get(_kind(config))) for config in configs),
        seconds=round(time.perf_counter() - started, 1),
    )


def _kind(config: Config) -> tuple[Any, ...]:
    """What the time of a step depends on; presets that differ in the weights of terms are alike."""
    net = tuple(sorted(config.net.model_dump().items()))
    final = (config.plan.final_patch, config.train.final_share) if config.train.final_share else ()
    return config.method.name, net, config.plan.patch, *final, batch_sizes(config), config.train.augment


def _forecast(config: Config, found: Times | None) -> Forecast:
    train = config.train
    head = (
        config.preset or "",
        config.method.name,
        config.plan.patch,
        sum(batch_sizes(config)),
        train.iterations,
    )
    if found is None:
        return Forecast(*head)
    hours = found.step_s * train.iterations / 3600
    return Forecast(*head, found.step_s, found.window_s, hours, found.measured)
