"""One training step, a function of the weights, the batch and (seed, iteration, rank)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn

from semivox.config import TrainConfig
from semivox.losses.schedules import lr_factor
from semivox.methods.base import Batch, Method, Step
from semivox.training.fabric import autocast


class Stepper:
    """Takes the steps of a run: losses, one backward pass, SGD, the critic's Adam, the moving averages.

    Nothing is read from the device; `watch` keeps what was computed until it is read. With several processes
    the gradients are averaged and the buffers (running means, memory banks) are those of rank 0, so that all
    ranks hold the same weights after each step.

    Args:
        fabric: launched; gives device, precision and processes.
        method: built; it is moved to the device, its convolution weights into the channels-last layout.
        config: settings of the run.
        momentum: momentum buffers to resume with, in the order of `trained`; None: zeros.
        critic: state of the critic's optimiser to resume with; empty: a fresh one.
    """

    def __init__(
        self,
        fabric: Fabric,
        method: Method,
        config: TrainConfig,
        *,
        momentum: list[Tensor] | None = None,
        critic: Mapping[str, Any] | None = None,
    ) -> None:
        self.fabric, self.method, self.config, self.watch = fabric, method, config, Watch()
        for parameter in method.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        method.to(fabric.device)
        groups = method.critic_parameters()
        self._critic_parameters = [parameter for group in groups for parameter in group["params"]]
        self._adam = torch.optim.Adam(groups, fused=True) if groups else None  # fused: reads nothing back
        if self._adam is not None and critic:
            self._adam.load_state_dict(dict(critic))
        own = {id(parameter) for parameter in self._critic_parameters}
        self._trained = [p for p in method.parameters() if p.requires_grad and id(p) not in own]
        self._sgd = make_sgd(self._trained, config, momentum, fused=fabric.device.type == "cuda")
        self._optimizer: Any = fabric.setup_optimizers(self._sgd)

    def begin(self, iteration: int) -> Step:
        """Seed torch's generators for the step that follows `iteration` steps, and return the step."""
        everywhere, own = step_seeds(self.config.seed, iteration, self.fabric.global_rank)
        seed_torch(everywhere, self.fabric.device)
        generator = torch.Generator(device=self.fabric.device).manual_seed(own)
        return Step(iteration=iteration, total=self.config.iterations, generator=generator)

    def lr(self, iteration: int) -> float:
        """Return the learning rate of the step that follows `iteration` steps."""
        return self.config.lr * lr_factor(self.config.schedule, iteration / self.config.iterations)

    def step(self, iteration: int, labeled: Batch, unlabeled: Batch) -> None:
        """Take the step that follows `iteration` steps."""
        step = self.begin(iteration)
        self._sgd.zero_grad()
        with autocast(self.fabric):
            terms = self.method.losses(labeled, unlabeled, step)
        values = _stacked(terms)
        self.fabric.backward(values.sum())
        average_gradients(self.fabric, self._trained)
        for group in self._sgd.param_groups:
            group["lr"] = self.lr(iteration)
        self._optimizer.step()
        if self._adam is not None:
            self._critic_step(self._adam, labeled, unlabeled, step)
        with torch.no_grad():
            self.method.after_step(step)
        share_buffers(self.fabric, self.method)
        self.watch.see(list(terms), values.detach(), step)

    def critic_autocast(self) -> AbstractContextManager[None]:
        """Return the precision of a critic: 32 bit where the gradients of the networks have a scaler."""
        return nullcontext() if precision_of(self.fabric) == "16-mixed" else autocast(self.fabric)

    def _critic_step(self, adam: torch.optim.Adam, labeled: Batch, unlabeled: Batch, step: Step) -> None:
        """Train the critic on the same batch; gradients that the networks' losses left in it are dropped."""
        adam.zero_grad()
        with torch.enable_grad(), self.critic_autocast():
            losses = self.method.critic_losses(labeled, unlabeled, step)
        _stacked(losses).sum().backward()  # type: ignore[no-untyped-call]
        average_gradients(self.fabric, self._critic_parameters)
        adam.step()
        for name, loss in losses.items():
            step.note(name, loss)

    def momentum(self) -> list[Tensor]:
        """Return the momentum buffers, in the order of the parameters that are trained."""
        return [self._sgd.state[parameter]["momentum_buffer"] for parameter in self._trained]

    def critic_state(self) -> dict[str, Any]:
        """Return the state of the critic's optimiser; empty without a critic."""
        return {} if self._adam is None else self._adam.state_dict()


def _stacked(terms: Mapping[str, Tensor]) -> Tensor:
    for name, term in terms.items():
        if term.dim() != 0:
            raise ValueError(f"loss {name} must be a scalar, found shape {tuple(term.shape)}")
    return torch.stack([term.float() for term in terms.values()])


def precision_of(fabric: Fabric) -> str:
    """Return Lightning's name of the arithmetic that `fabric` computes in."""
    return str(fabric.strategy.precision.precision)


def step_seeds(seed: int, iteration: int, rank: int) -> tuple[int, int]:
    """Return the seeds of torch's global generator and of `Step.generator` for one step of one rank."""
    words = np.random.SeedSequence((seed % 2**64, iteration, rank)).generate_state(2, np.uint64)
    return int(words[0]) >> 1, int(words[1]) >> 1


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the global generators of the CPU and of `device`.

    `torch.manual_seed` would also queue the seed for all other kinds of devices, which takes milliseconds.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def make_sgd(
    parameters: Sequence[nn.Parameter], config: TrainConfig, momentum: list[Tensor] | None, *, fused: bool
) -> torch.optim.SGD:
    """Return an SGD whose momentum buffers exist from the start.

    Zero buffers change nothing in the arithmetic; with them a parameter may get its first gradient at any
    iteration (which PyTorch's fused kernel cannot do otherwise), and a checkpoint always has all of them.

    Args:
        parameters: what is trained.
        config: lr, momentum and weight_decay are used.
        momentum: buffers to resume with, in the order of `parameters`; None: zeros.
        fused: use the fused kernel, the fastest on CUDA (on a CPU the plain loop is).
    """
    optimizer = torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=fused or None,
    )
    for index, parameter in enumerate(parameters):
        buffer = torch.zeros_like(parameter)
        if momentum is not None:
            buffer.copy_(momentum[index])
        optimizer.state[parameter]["momentum_buffer"] = buffer
    return optimizer


@torch.no_grad()
def average_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if fabric.world_size > 1 and gradients:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        _split_into(gradients, flat / fabric.world_size)


@torch.no_grad()
def share_buffers(fabric: Fabric, method: Method) -> None:
    """Give all processes the buffers of rank 0: running means and memory banks differ with their patches."""
    buffers = [buffer for buffer in method.buffers() if buffer.numel()]
    if fabric.world_size > 1:
        for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):
            alike = [buffer for buffer in buffers if buffer.dtype == dtype]
            flat = torch.cat([buffer.flatten() for buffer in alike])
            distributed.broadcast(flat, src=0)
            _split_into(alike, flat)


def _split_into(tensors: Sequence[Tensor], flat: Tensor) -> None:
    for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


class Watch:
    """Follows the loss terms step by step without reading from the device; `read` does so, once.

    The first iteration at which a term is not finite is kept as a float32 number (exact below 2^24).
    """

    def __init__(self) -> None:
        self._notes: Mapping[str, Tensor] = {}
        self._names: tuple[str, ...] = ()
        self._values = torch.empty(0)
        self._first: dict[tuple[str, ...], Tensor] = {}

    def see(self, names: Sequence[str], values: Tensor, step: Step) -> None:
        """Take over the detached terms (N,) of one step, and what the method noted in it."""
        self._notes, self._names, self._values = step.notes, tuple(names), values
        first = self._first.get(self._names)
        if first is None:
            first = torch.full_like(values, torch.inf)
        self._first[self._names] = torch.where(values.isfinite(), first, first.clamp(max=step.iteration + 1))

    def read(self) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
        """Read, in one transfer, losses and notes of the last step and the record of non-finite terms.

        The record holds the first iteration (from 1) of each term that was ever NaN or infinite.
        """
        device = self._values.device
        notes = {n: v.detach().to(device, torch.float32).reshape(1) for n, v in self._notes.items()}
        packed = torch.cat([self._values, *notes.values(), *self._first.values()]).tolist()
        losses, noted = dict(zip(self._names, packed, strict=False)), packed[len(self._names) :]
        names = [name for group in self._first for name in group]
        first: dict[str, int] = {}
        for name, iteration in zip(names, noted[len(notes) :], strict=True):
            if iteration != float("inf"):
                first[name] = min(int(iteration), first.get(name, int(iteration)))
        return losses, dict(zip(notes, noted, strict=False)), first


def channels_last(image: Tensor) -> Tensor:
    """Copy (B, C, X, Y, Z) into the channels-last layout, also where C = 1.

    `contiguous` leaves a single channel as it is, as its layout is both; the first convolution then answers
    in the other layout, and the full-resolution maps are converted again and again.
    """
    return image.clone(memory_format=torch.channels_last_3d)


def streams(batch: Mapping[str, Any]) -> tuple[Batch, Batch]:
    """Return the labeled and the unlabeled batch; a stream without a loader becomes an empty batch, B = 0."""
    some = next(iter(batch.values()))["image"]
    images = {
        name: channels_last(batch[name]["image"]) if name in batch else some.new_zeros((0, *some.shape[1:]))
        for name in ("labeled", "unlabeled")
    }
    label, valid = (batch.get("labeled", {}).get(key) for key in ("label", "valid"))
    if label is None:
        label = some.new_zeros((0, *some.shape[2:]), dtype=torch.int64)
    strong = batch["unlabeled"].get("image_strong") if "unlabeled" in batch else images["unlabeled"]
    if strong is not None:
        strong = strong.contiguous(memory_format=torch.channels_last_3d)
    return Batch(images["labeled"], label, valid=valid), Batch(images["unlabeled"], None, strong)
