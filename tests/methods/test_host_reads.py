"""How often a training step waits for the device to read a value: counted for every method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semivox.methods import METHODS, create
from semivox.methods.base import Batch
from semivox.nets import NetFactory

Factory = Callable[..., Any]

OPERATIONS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "item"}
TO_HOST = ("cpu", "numpy", "tolist", "__array__")

EXPECTED = {
    "bcp": {"cpu": 2, "numpy": 2},  # largest components of both halves' pseudo-labels, found by SciPy
    "sdcl": {"cpu": 2, "numpy": 2},  # the same
}
"""What a method reads in a step after its warm-up, and why; all others nothing."""


class Reads(TorchDispatchMode):
    """Count operations whose result, or its size, has to be known on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).split(".")[1]
        if name in OPERATIONS or name.startswith(("_unique", "unique")):
            self.found[name] += 1
        if name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        ):
            self.found["boolean index"] += 1
        return function(*args, **(kwargs or {}))


@contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    """Count the operations, and the methods that copy a tensor to the host, which need none on a CPU."""
    originals = {name: getattr(Tensor, name) for name in TO_HOST}
    with pytest.MonkeyPatch.context() as patch, Reads() as reads:
        for name, original in originals.items():

            def counting(self: Tensor, *args: Any, _name: str = name, _original: Any = original) -> Any:
                reads.found[_name] += 1
                return _original(self, *args)

            patch.setattr(Tensor, name, counting)
        yield reads.found


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda t: t.sum().item(), "_local_scalar_dense"),
        (lambda t: 1 if t.sum() > 0 else 0, "is_nonzero"),
        (lambda t: t[t > 0], "boolean index"),
        (lambda t: t.nonzero(), "nonzero"),
        (lambda t: t.masked_select(t > 0), "masked_select"),
        (lambda t: t.unique(), "_unique2"),
        (lambda t: t.cpu(), "cpu"),
        (lambda t: t.numpy(), "numpy"),
        (lambda t: t.tolist(), "tolist"),
    ],
)
def test_reads_are_counted(read: Callable[[Tensor], object], name: str) -> None:
    values = torch.arange(-2.0, 3.0)
    with counted_reads() as found:
        read(values)
    assert found[name] == 1 or (name == "is_nonzero" and found["_local_scalar_dense"] == 1)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("iteration", [0, 7])
def test_a_step_reads_nothing_but_what_is_listed(name: str, iteration: int, step: Factory) -> None:
    """Losses, backward pass, critic and teacher, at the start and after all warm-ups."""
    method = create(name, {}, NetFactory(1, 3, width=2))
    label = torch.randint(0, 3, (2, 32, 16, 16))
    labeled = Batch(torch.randn(2, 1, 32, 16, 16), label)
    unlabeled = Batch(torch.randn(2, 1, 32, 16, 16), None)
    at = step(iteration, 10)
    with counted_reads() as found:
        torch.stack(list(method.losses(labeled, unlabeled, at).values())).sum().backward()
        critic = method.critic_losses(labeled, unlabeled, at)
        if critic:
            torch.stack(list(critic.values())).sum().backward()
        method.after_step(at)
    assert found == (EXPECTED.get(name, {}) if iteration else {})
