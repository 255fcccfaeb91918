"""What a run needs to resume: written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semivox.errors import UserError
from semivox.files import replacing
from semivox.methods.base import Method
from semivox.training.fabric import Precision

_FORMAT = 1
_FRESH = "start over with --fresh, or choose another run folder"


@dataclass
class Checkpoint:
    """The state of a run after `iteration` steps: tensors, numbers and strings only.

    Attributes:
        iteration: optimiser steps done.
        weights: state dict of the method, buffers included.
        momentum: momentum buffers of SGD, in the order of the parameters that are trained.
        optimizer: state of Adam or AdamW; empty with SGD.
        average: state dict of the averaged weights; empty without `train.average`.
        critic: state of the critic's optimiser; empty except for adversarial methods.
        scaler: state of the gradient scaler; empty except in 16 bit training.
        precision: from `resolve_precision`; None in best.ckpt.
        seconds: wall-clock time spent so far.
        scores: validation results of these weights; only in the best checkpoint.
    """

    iteration: int
    weights: dict[str, Tensor]
    momentum: list[Tensor] = field(default_factory=list)
    optimizer: dict[str, Any] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    critic: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    precision: Precision | None = None
    seconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)


def last_path(folder: Path) -> Path:
    """Return the path of the checkpoint from which the run in `folder` resumes."""
    return folder / "checkpoints" / "last.ckpt"


def best_path(folder: Path) -> Path:
    """Return the path of the checkpoint with the highest validation Dice; it has weights but no momentum."""
    return folder / "checkpoints" / "best.ckpt"


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint`, replacing an older one only when the new one is whole.

    It is packed in memory: what PyTorch's own file writer says of a full disk differs from place to place.
    """
    packed = io.BytesIO()
    torch.save({"format": _FORMAT, **vars(checkpoint)}, packed)
    with replacing(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


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
        return Checkpoint(**{key: value for key, value in content.items() if key != "run"})  # of older runs
    except Exception as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        do = "start over with --fresh, or put back a copy of the file"
        raise UserError(
            "The checkpoint cannot be read", found, "a whole checkpoint of semivox", do, path
        ) from error


def resume(folder: Path, method: Method) -> tuple[Checkpoint, dict[str, Any] | None]:
    """Load the last weights of the run in `folder` into `method`; return its state and its best scores.

    Whether the run may be resumed with the settings of this call has been decided before, by `semivox.run`.
    """
    last, best = last_path(folder), best_path(folder)
    if not last.is_file():
        best.unlink(missing_ok=True)
        return Checkpoint(0, {}), None
    state = load_weights(last, method)
    if not best.is_file():
        return state, None
    found = load(best)
    return state, {"iteration": found.iteration, **found.scores}


def load_weights(path: Path, method: Method) -> Checkpoint:
    """Copy the weights in `path` into `method`, and return the checkpoint.

    Args:
        path: a file written by `save`, e.g. `best_path(folder)`.
        method: built, with networks of the same shapes.

    Raises:
        UserError: damaged file, or weights that do not fit the method.
    """
    checkpoint, own = load(path), method.state_dict()
    differing = sorted(own.keys() ^ checkpoint.weights.keys()) + [
        f"{name} {tuple(value.shape)}"
        for name, value in checkpoint.weights.items()
        if name in own and own[name].shape != value.shape
    ]
    if differing:
        raise UserError(
            "The checkpoint does not fit the networks",
            f"{len(differing)} tensors differ, the first is {differing[0]}",
            f"the weights of {type(method).__name__} as it is set up now",
            f"use the method and network settings of the run, {_FRESH}",
            path,
        )
    method.load_state_dict(checkpoint.weights)
    return checkpoint
