"""What the networks alone cost in a step: its calls of network parts are recorded and run again alone.

Losses, labels, percentiles, teachers' averages and optimisers are then what a step takes beyond that.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from math import prod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from semivox.losses import distance
from timing import Seconds, timed

PASSES = ("pyramid",)  # what a method asks of a network besides calling it


class Call(NamedTuple):
    """One call of a part of a network."""

    part: nn.Module
    function: Callable[..., Any]  # the part itself, or one of its `PASSES`
    inputs: tuple[Any, ...]  # detached; those that carried a gradient do so again
    graph: bool  # whether it was recorded for a backward pass
    frozen: bool  # whether the parameters took no gradient


class Recorder:
    """Record the outermost calls of parts with parameters while a step runs.

    Args:
        method: whose networks are watched; its own functions are not.

    Attributes:
        macs: multiply-accumulates of the convolutions, by whether a backward pass followed.
    """

    def __init__(self, method: nn.Module) -> None:
        self.method, self.calls, self.macs = method, list[Call](), {True: 0, False: 0}
        self._depth, self._hooks = 0, list[Any]()
        self._wrapped = list[tuple[nn.Module, str]]()

    def __enter__(self) -> Self:
        for part in self.method.modules():
            if part is not self.method and any(True for _ in part.parameters()):
                self._hooks.append(
                    part.register_forward_pre_hook(lambda part, inputs: self._enter(part, part, inputs))
                )
                self._hooks.append(part.register_forward_hook(self._leave))
                for name in PASSES:
                    if hasattr(part, name):
                        self._wrap(part, name)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for part, name in self._wrapped:
            delattr(part, name)

    def _wrap(self, part: nn.Module, name: str) -> None:
        original = getattr(part, name)

        def watched(*inputs: Any) -> Any:
            self._enter(part, original, inputs)
            output = original(*inputs)
            self._depth -= 1
            return output

        setattr(part, name, watched)
        self._wrapped.append((part, name))

    def _enter(self, part: nn.Module, function: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        if self._depth == 0:
            frozen = not any(parameter.requires_grad for parameter in part.parameters())
            self.calls.append(Call(part, function, again(inputs), torch.is_grad_enabled(), frozen))
        self._depth += 1

    def _leave(self, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._depth -= 1
        if isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
            grid = inputs[0] if isinstance(part, nn.ConvTranspose3d) else output
            macs = grid.shape[0] * prod(grid.shape[2:]) * part.weight.numel()
            self.macs[torch.is_grad_enabled()] += macs

    def replay(self, autocast: Callable[[], AbstractContextManager[Any]]) -> Seconds:
        """Run all calls again, forward and (where there was a graph) backward."""
        total = Seconds(0.0, 0.0)
        for call in self.calls:
            flags = [parameter.requires_grad for parameter in call.part.parameters()]
            if call.frozen:
                call.part.requires_grad_(False)
            spent = timed(lambda call=call: run(call, autocast))  # type: ignore[misc]
            for parameter, flag in zip(call.part.parameters(), flags, strict=True):
                parameter.requires_grad_(flag)
                parameter.grad = None
            total = Seconds(total.wall + spent.wall, total.cpu + spent.cpu)
        return total


def run(call: Call, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
    """Call a part; the gradient that comes back has the output's layout."""
    with torch.set_grad_enabled(call.graph), autocast():
        output = call.function(*call.inputs)
    outputs = [value for value in flat(output) if value.requires_grad]
    if outputs:
        torch.autograd.backward(outputs, [torch.full_like(value, 1e-3) for value in outputs])


def flat(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from flat(part)


def again(value: Any) -> Any:
    """Detach tensors in nested tuples and lists; each takes a gradient if it did."""
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, tuple | list):
        return type(value)(again(part) for part in value)
    return value


@contextmanager
def timed_distances() -> Iterator[list[float]]:
    """Yield a list that grows by the processor time of each signed distance map."""
    spent: list[float] = []
    original = distance.signed_distance

    def measured(*arguments: Any, **options: Any) -> Tensor:
        start = time.process_time()
        found = original(*arguments, **options)
        spent.append(time.process_time() - start)
        return found

    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("semivox.") and getattr(module, "signed_distance", None) is original
    ]
    for module in users:
        module.signed_distance = measured  # type: ignore[attr-defined]
    try:
        yield spent
    finally:
        for module in users:
            module.signed_distance = original  # type: ignore[attr-defined]
