"""One training step, a function of the weights, the batch and (seed, iteration, rank)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn

from semivox.config import TrainConfig
from semivox.losses.schedules import Stage, lr_factor, make_stages
from semivox.methods.base import Batch, Method, Step, copy_buffers, update_ema, warm_decay
from semivox.training.checkpoints import Checkpoint
from semivox.training.fabric import autocast, precision_of


class Stepper:
    """Takes the steps of a run: losses, one backward pass, the optimiser, the critic's Adam, averages.

    Nothing is read from the device; `watch` keeps what was computed until it is read. With several processes
    the gradients are averaged and the buffers (running means, memory banks) are those of rank 0, so that all
    ranks hold the same weights after each step.

    `method` is moved to the device, its convolution weights into the channels-last layout. `state` holds
    momentum, optimiser, critic and averaged weights to resume with.
    """

    def __init__(
        self, fabric: Fabric, method: Method, config: TrainConfig, state: Checkpoint | None = None
    ) -> None:
        self.fabric, self.method, self.config, self.watch = fabric, method, config, Watch()
        self.stages = make_stages(method.stages(config.iterations), config.iterations)
        for parameter in method.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        method.to(fabric.device)
        self.averaged = copy.deepcopy(method).requires_grad_(False) if config.average else method
        groups = method.critic_parameters()
        self._adam = torch.optim.Adam(groups, fused=True) if groups else None  # fused: reads nothing back
        self._critic_parameters = [parameter for group in groups for parameter in group["params"]]
        own = set(map(id, self._critic_parameters))
        self._trained = [p for p in method.parameters() if p.requires_grad and id(p) not in own]
        self._set_optimizer(state)
        if state and state.average:
            self.averaged.load_state_dict(state.average)
        if state and state.critic and self._adam is not None:
            self._adam.load_state_dict(dict(state.critic))

    def _set_optimizer(self, state: Checkpoint | None) -> None:
        kinds = {"cuda"} if self.config.optimizer == "sgd" else {"cuda", "cpu"}
        fused = self.fabric.device.type in kinds
        self._plain = make_optimizer(self._trained, self.config, state, fused=fused)
        self._optimizer: Any = self.fabric.setup_optimizers(self._plain)

    def restart(self) -> None:
        """Begin a stage: from the averaged weights, with a fresh optimiser."""
        self.method.load_state_dict(self.averaged.state_dict())
        self._set_optimizer(None)

    def stage(self, iteration: int) -> Stage:
        """Return the stage to which the step that follows `iteration` steps belongs."""
        return next((stage for stage in self.stages if iteration < stage.stop), self.stages[-1])

    def begin(self, iteration: int) -> Step:
        """Seed torch's generators for the step that follows `iteration` steps, and return the step."""
        key = (self.config.seed % 2**64, iteration, self.fabric.global_rank)
        words = np.random.SeedSequence(key).generate_state(2, np.uint64)
        everywhere, own = (int(word) >> 1 for word in words)
        seed_torch(everywhere, self.fabric.device)
        generator = torch.Generator(device=self.fabric.device).manual_seed(own)
        return Step(iteration=iteration, total=self.config.iterations, generator=generator)

    def lr(self, iteration: int) -> float:
        """Return the learning rate of the step that follows `iteration` steps."""
        config, stage = self.config, self.stage(iteration)
        done, length = iteration - stage.start, stage.stop - stage.start
        every = None if config.step_every is None else config.step_every * config.iterations
        warm = min(1.0, (done + 1) / (config.warmup + 1e-9))
        return config.lr * warm * lr_factor(config.schedule, done, length, every)

    def step(self, iteration: int, labeled: Batch, unlabeled: Batch) -> None:
        """Take the step that follows `iteration` steps."""
        step = self.begin(iteration)
        self._plain.zero_grad()
        with autocast(self.fabric):
            terms = self.method.losses(labeled, unlabeled, step)
        values = _stacked(terms)
        self.fabric.backward(values.sum())
        average_gradients(self.fabric, self._trained)
        for group in self._plain.param_groups:
            group["lr"] = self.lr(iteration)
        if (clip := self.config.clip) is not None:
            self.fabric.clip_gradients(self.method, self._optimizer, max_norm=clip, error_if_nonfinite=False)
        self._optimizer.step()
        if self._adam is not None:
            self._critic_step(self._adam, labeled, unlabeled, step)
        with torch.no_grad():
            self.method.after_step(step)
        share_buffers(self.fabric, self.method)
        self._average(iteration)
        self.watch.see(list(terms), values.detach(), step)

    def _average(self, iteration: int) -> None:
        """Move the averaged weights; the first steps of a stage average over fewer."""
        if self.averaged is not self.method:
            done = iteration - self.stage(iteration).start
            update_ema(self.averaged, self.method, warm_decay(done, self.config.average))
            copy_buffers(self.averaged, self.method)

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

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs of weights and optimisers, see `Checkpoint`."""
        sgd = isinstance(self._plain, torch.optim.SGD)
        state, averaged = self._plain.state, self.averaged is not self.method
        return {
            "weights": dict(self.method.state_dict()),
            "momentum": [state[parameter]["momentum_buffer"] for parameter in self._trained] if sgd else [],
            "optimizer": {} if sgd else self._plain.state_dict(),
            "average": dict(self.averaged.state_dict()) if averaged else {},
            "critic": {} if self._adam is None else self._adam.state_dict(),
        }


def _stacked(terms: Mapping[str, Tensor]) -> Tensor:
    for name, term in terms.items():
        if term.dim() != 0:
            raise ValueError(f"loss {name} must be a scalar, found shape {tuple(term.shape)}")
    return torch.stack([term.float() for term in terms.values()])


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the global generators of the CPU and of `device`.

    `torch.manual_seed` would also queue the seed for all other kinds of devices, which takes milliseconds.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def make_optimizer(
    parameters: Sequence[nn.Parameter], config: TrainConfig, state: Checkpoint | None, *, fused: bool
) -> torch.optim.Optimizer:
    """Return the optimiser of the networks, as it was in `state` if that is given.

    SGD has its momentum buffers from the start. Zero buffers change nothing in the arithmetic; with them a
    parameter may get its first gradient at any iteration (which PyTorch's fused kernel cannot do otherwise),
    and a checkpoint always has all of them.

    The fused kernel is the fastest but for SGD on a CPU, where the plain loop is.
    """
    decay: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused or None}
    if config.optimizer != "sgd":
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        adam: torch.optim.Optimizer = kind(parameters, **decay)
        if state and state.optimizer:
            adam.load_state_dict(state.optimizer)
        return adam
    sgd = torch.optim.SGD(parameters, momentum=config.momentum, **decay)
    for index, parameter in enumerate(parameters):
        buffer = torch.zeros_like(parameter)
        if state and state.momentum:
            buffer.copy_(state.momentum[index])
        sgd.state[parameter]["momentum_buffer"] = buffer
    return sgd


def average_gradients(fabric: Fabric, parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes."""
    if fabric.world_size > 1:
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        _exchange(found, lambda flat: distributed.all_reduce(flat.div_(fabric.world_size)))


def share_buffers(fabric: Fabric, method: Method) -> None:
    """Give all processes the buffers of rank 0: running means and memory banks differ with their patches."""
    if fabric.world_size > 1:
        _exchange(list(method.buffers()), lambda flat: distributed.broadcast(flat, src=0))


@torch.no_grad()
def _exchange(tensors: Sequence[Tensor], send: Callable[[Tensor], object]) -> None:
    """Change tensors in place by what `send` makes of them: all of a type in one flat message."""
    tensors = [tensor for tensor in tensors if tensor.numel()]
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in alike])
        send(flat)
        for tensor, part in zip(alike, torch.split(flat, [t.numel() for t in alike]), strict=True):
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
    first, second = batch.get("labeled", {}), batch.get("unlabeled", {})
    images = [channels_last(part.get("image", some[:0])) for part in (first, second)]
    label = first.get("label", torch.zeros_like(some[:0, 0], dtype=torch.int64))
    labeled = Batch(images[0], label, valid=first.get("valid"), soft=first.get("soft"))
    return labeled, Batch(images[1], None, soft=second.get("soft"))
