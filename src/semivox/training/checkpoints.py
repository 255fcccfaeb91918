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
from semivox.inference.model import restore
from semivox.methods.base import Method
from semivox.training.fabric import Precision

_FORMAT = 1


@dataclass
class Checkpoint:
    """The state of a run after `iteration` steps: tensors, numbers and strings only."""

    iteration: int  # optimiser steps done
    weights: dict[str, Tensor]  # state dict of the method, buffers included
    momentum: list[Tensor] = field(default_factory=list)  # of SGD, in the order of the parameters trained
    optimizer: dict[str, Any] = field(default_factory=dict)  # state of Adam or AdamW; empty with SGD
    average: dict[str, Tensor] = field(default_factory=dict)  # averaged weights; empty without them
    critic: dict[str, Any] = field(default_factory=dict)  # state of a critic's optimiser, if there is one
    scaler: dict[str, Any] = field(default_factory=dict)  # of the gradients; only in 16 bit training
    precision: Precision | None = None  # from `resolve_precision`; None in best.ckpt
    seconds: float = 0.0  # wall-clock time spent so far
    scores: dict[str, float] = field(default_factory=dict)  # validation results; only in best.ckpt


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
        raise UserError("The checkpoint cannot be read", found, "a whole checkpoint", do, path) from error


def resume(folder: Path, method: Method) -> tuple[Checkpoint, dict[str, Any] | None]:
    """Load the last weights of the run in `folder` into `method`; return its state and its best scores.

    Whether the run may be resumed with the settings of this call has been decided before, by `semivox.run`.
    """
    last, best = last_path(folder), best_path(folder)
    if not last.is_file():
        best.unlink(missing_ok=True)
        return Checkpoint(0, {}), None
    state, found = load_weights(last, method), load(best) if best.is_file() else None
    return state, None if found is None else {"iteration": found.iteration, **found.scores}


def load_weights(path: Path, method: Method) -> Checkpoint:
    """Copy the weights in `path` into `method`, return the checkpoint; errors as of `load` and `restore`."""
    checkpoint = load(path)
    do = "use the method and network settings of the run, start over with --fresh, or choose another folder"
    restore(method, checkpoint.weights, path, do)
    return checkpoint
