"""What a run needs to go on: written atomically, read without unpickling code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.files import replacing
from semivox.methods.base import Method
from semivox.training.failures import weights_not_finite
from semivox.training.precision import LightningPrecision

_FORMAT = 1
_FRESH = "start over with --fresh, or choose another run folder"
_DECISIVE = (
    "iterations", "seed", "batch_labeled", "batch_unlabeled", "augment", "foreground_crops", "lr", "momentum",
    "weight_decay", "schedule", "final_share",
)  # fmt: skip
_EXTENDED = {"iterations", "final_share"}  # what may differ in a longer run
_ABSENT = {"final_share": 0.0}  # what a checkpoint means that was written before there was such a setting


@dataclass
class Checkpoint:
    """The state of a run after `iteration` steps: tensors, numbers and strings only.

    Attributes:
        iteration: optimiser steps done.
        weights: state dict of the method, buffers included.
        momentum: momentum buffers, in the order of the parameters that are trained.
        critic: state of the critic's optimiser; empty except for adversarial methods.
        scaler: state of the gradient scaler; empty except in 16 bit training.
        precision: from `resolve_precision`; None in best.ckpt.
        seconds: wall-clock time spent so far.
        run: the settings that decide the result; a run goes on only if they are the same.
        scores: validation results of these weights; only in the best checkpoint.
    """

    iteration: int
    weights: dict[str, Tensor]
    momentum: list[Tensor] = field(default_factory=list)
    critic: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    precision: LightningPrecision | None = None
    seconds: float = 0.0
    run: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


def last_path(folder: Path) -> Path:
    """Checkpoint from which the run in `folder` goes on."""
    return folder / "checkpoints" / "last.ckpt"


def best_path(folder: Path) -> Path:
    """Checkpoint with the highest validation Dice; it has weights but no momentum."""
    return folder / "checkpoints" / "best.ckpt"


def describe_run(method: Method, config: TrainConfig) -> dict[str, Any]:
    """Return the settings that must agree for a run to go on; device, precision and logging may change."""
    settings = config.model_dump(mode="json")
    decisive = {name: settings[name] for name in _DECISIVE}
    return {"method": type(method).__name__, "options": method.config.model_dump(mode="json"), **decisive}


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint`, replacing an older one only when the new one is whole."""
    content = {"format": _FORMAT, **vars(checkpoint)}
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint to the CPU. PyTorch does not look at the checksums of its files, so this does.

    Raises:
        UserError: the file is damaged or was not written by `save`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"wrong checksum of {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content.pop("format") != _FORMAT:
            raise ValueError("another format version")
        return Checkpoint(**content)
    except Exception as error:
        detail = " ".join(str(error).split())[:120]
        raise UserError(
            "The checkpoint cannot be read",
            path=path,
            found=f"{type(error).__name__}: {detail}",
            expected="a whole checkpoint of this version of semivox",
            do="start over with --fresh, or put back a copy of the file",
        ) from error


def require_same_run(path: Path, checkpoint: Checkpoint, run: Mapping[str, Any]) -> None:
    """Raise a `UserError` naming the settings in which `checkpoint` differs from `run`.

    More iterations than the checkpoint's are no difference, and then another `final_share` is none: a run may
    be extended.
    """
    stored = _ABSENT | checkpoint.run
    longer = stored.get("iterations", 0) < run["iterations"]
    changed = [name for name, value in run.items() if stored.get(name) != value]
    changed = [name for name in changed if not (longer and name in _EXTENDED)]
    if changed:
        raise UserError(
            "The run folder holds a run with other settings",
            path=path,
            found=", ".join(f"{name}={stored.get(name)}" for name in changed),
            expected=", ".join(f"{name}={run[name]}" for name in changed),
            do=_FRESH,
        )


def load_weights(path: Path, method: Method, checkpoint: Checkpoint | None = None) -> Checkpoint:
    """Copy the weights in `path` into `method`, and return the checkpoint.

    Args:
        path: a file written by `save`, e.g. `best_path(folder)`.
        method: built, with networks of the same shapes.
        checkpoint: the content of `path`, if it has been read before.

    Raises:
        UserError: damaged file, or weights that do not fit the method.
    """
    checkpoint = checkpoint or load(path)
    own = method.state_dict()
    differing = sorted(own.keys() ^ checkpoint.weights.keys()) + [
        f"{name} {tuple(value.shape)}"
        for name, value in checkpoint.weights.items()
        if name in own and own[name].shape != value.shape
    ]
    if differing:
        raise UserError(
            "The checkpoint does not fit the networks",
            path=path,
            found=f"{len(differing)} tensors differ, the first is {differing[0]}",
            expected=f"the weights of {type(method).__name__} as it is set up now",
            do=f"use the method and network settings of the run, {_FRESH}",
        )
    method.load_state_dict(checkpoint.weights)
    return checkpoint


def require_finite(method: Method, iteration: int) -> None:
    """Raise a `UserError` if a parameter holds NaN or infinity (reads one number from the device)."""
    parameters = [parameter.detach() for parameter in method.parameters()]
    if not bool(torch.nn.utils.get_total_norm(parameters).isfinite()):
        raise weights_not_finite(iteration)
