"""Failures of training in words that a user can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from semivox.errors import UserError

_MARK = "semivox.errors.UserError: "


@contextmanager
def explained() -> Iterator[None]:
    """Turn failures inside the block that `readable` knows into a `UserError`."""
    try:
        yield
    except Exception as error:
        known = readable(error)
        if known is None:
            raise
        raise known from error


def readable(error: BaseException) -> UserError | None:
    """Return the `UserError` that stands for `error`, or None if `error` speaks for itself.

    Covers memory that ran out, loader processes that died, and a `UserError` of a loader process, which
    arrives wrapped in that process's traceback.
    """
    text = str(error)
    if isinstance(error, UserError):
        return UserError(text.rsplit(_MARK, 1)[1].strip()) if _MARK in text else None
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return UserError(
            "The device ran out of memory",
            found=text.splitlines()[0],
            expected="room for the networks and one batch",
            do="a smaller patch (plan.patch; plan.final_patch where train.final_share is set), fewer patches"
            " a step (train.batch_labeled, train.batch_unlabeled) or --set train.precision=bf16",
        )
    if isinstance(error, RuntimeError) and re.search(r"DataLoader worker .*(killed|exited)", text):
        return UserError(
            "A loader process died",
            found=text.splitlines()[0],
            expected="loader processes that live as long as the training",
            do="--set train.workers=0; if it then runs, the machine has too little memory for the"
            " processes. The same command goes on from the last checkpoint",
        )
    return None


def not_finite(first: Mapping[str, int], iterations: int) -> UserError:
    """Return the error for losses that became NaN or infinite.

    Args:
        first: for each term that was not finite, the iteration (from 1) at which that first happened.
        iterations: length of the run.
    """
    start = min(first.values())
    return UserError(
        f"The loss is not finite at iteration {start} of {iterations}",
        found=", ".join(f"{name} (iteration {at})" for name, at in sorted(first.items(), key=lambda x: x[1])),
        expected="finite loss terms; training stopped and the last checkpoint holds the weights from before",
        do="a smaller --set train.lr, or --set train.precision=32; then start over with --fresh",
    )


def weights_not_finite(iteration: int) -> UserError:
    """Return the error for weights that became NaN or infinite although no loss term did."""
    return UserError(
        f"The weights are not finite after iteration {iteration}",
        found="NaN or infinity in the parameters while every loss term was finite",
        expected="finite weights; training stopped and the last checkpoint holds the weights from before",
        do="a smaller --set train.lr, or --set train.precision=32; then start over with --fresh",
    )
