"""The second optimiser, of an adversarial method's critic."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from semivox.methods.base import Batch, Method, Step


class CriticOptimizer:
    """Adam on `Method.critic_parameters`, one step after each step of the networks.

    Gradients that the networks' losses left in the critic are discarded. In 16 bit training the critic
    computes in 32 bit, as the gradient scaler is the networks'. The fused kernel reads nothing back.

    Args:
        method: on its device.
        state: from `state` of the run that goes on; empty: a fresh Adam.
    """

    def __init__(self, method: Method, state: Mapping[str, Any]) -> None:
        self._method = method
        groups = method.critic_parameters()
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._adam = torch.optim.Adam(groups, fused=True) if groups else None
        if self._adam is not None and state:
            self._adam.load_state_dict(dict(state))

    def owns(self, parameter: Tensor) -> bool:
        """Whether `parameter` is the critic's."""
        return any(parameter is own for own in self._parameters)

    def step(self, labeled: Batch, unlabeled: Batch, step: Step, plugin: pl.plugins.Precision) -> None:
        """Train the critic, if there is one, and note its losses."""
        if self._adam is None:
            return
        self._adam.zero_grad()
        with torch.enable_grad(), critic_autocast(plugin):
            losses = self._method.critic_losses(labeled, unlabeled, step)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        for name, loss in losses.items():
            step.note(name, loss)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs of it; empty without a critic."""
        return {} if self._adam is None else self._adam.state_dict()


def critic_autocast(plugin: pl.plugins.Precision) -> AbstractContextManager[None]:
    """The precision that a critic computes in."""
    return nullcontext() if plugin.precision == "16-mixed" else plugin.forward_context()
