"""Lightning's Trainer, set up to be quick and silent."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from semivox.training.precision import LightningPrecision


def make_trainer(
    device: torch.device,
    precision: LightningPrecision,
    callbacks: Sequence[pl.Callback],
    *,
    batches: int | None = None,
) -> pl.Trainer:
    """Return a Trainer for one pass over the loaders on one device.

    Args:
        device: where to train.
        precision: from `resolve_precision`.
        callbacks: called around each step, in this order.
        batches: stop after so many batches; None: all.
    """
    return pl.Trainer(
        accelerator=device.type,
        devices=1 if device.type == "cpu" else [device.index or 0],
        precision=precision,
        callbacks=list(callbacks),
        plugins=[LightningEnvironment()],
        min_epochs=0,
        max_epochs=1,
        limit_train_batches=batches,
        num_sanity_val_steps=0,
        benchmark=device.type == "cuda",
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's banners, tips and warnings inside the block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
