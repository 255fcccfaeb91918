"""What a step computed, kept on the device until it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from semivox.methods.base import Step


@dataclass(frozen=True)
class Reading:
    """Numbers on the host.

    Attributes:
        losses: the loss terms of the last step.
        notes: what the method noted in that step.
        not_finite: for each term that was ever NaN or infinite, the first iteration (from 1) at which it was.
    """

    losses: dict[str, float]
    notes: dict[str, float]
    not_finite: dict[str, int] = field(default_factory=dict)


class Watch:
    """Follows the loss terms step by step without reading from the device; `read` does so, once.

    The first iteration at which a term is not finite is kept as a float32 number (exact below 2^24).
    """

    def __init__(self) -> None:
        self.step: Step
        self._names: tuple[str, ...] = ()
        self._values = torch.empty(0)
        self._first: dict[tuple[str, ...], Tensor] = {}

    def see(self, names: Sequence[str], values: Tensor, step: Step) -> None:
        """Take over the detached terms (N,) of one step."""
        self.step, self._names, self._values = step, tuple(names), values
        first = self._first.get(self._names)
        if first is None:
            first = torch.full_like(values, torch.inf)
        self._first[self._names] = torch.where(values.isfinite(), first, first.clamp(max=step.iteration + 1))

    def read(self) -> Reading:
        """Read the last step and the record of non-finite terms in one transfer."""
        device = self._values.device
        notes = {
            name: value.detach().to(device, torch.float32).reshape(1)
            for name, value in self.step.notes.items()
        }
        packed = torch.cat([self._values, *notes.values(), *self._first.values()]).tolist()
        losses, packed = packed[: len(self._names)], packed[len(self._names) :]
        noted, packed = packed[: len(notes)], packed[len(notes) :]
        names = [name for group in self._first for name in group]
        first: dict[str, int] = {}
        for name, iteration in zip(names, packed, strict=True):
            if iteration != float("inf"):
                first[name] = min(int(iteration), first.get(name, int(iteration)))
        return Reading(
            dict(zip(self._names, losses, strict=True)), dict(zip(notes, noted, strict=True)), first
        )
