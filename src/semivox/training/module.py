"""One training step, a function of the weights and (seed, iteration)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from semivox.config import TrainConfig
from semivox.errors import UserError
from semivox.losses.schedule import lr_factor
from semivox.methods.base import Batch, Method, Step
from semivox.training.critic import CriticOptimizer
from semivox.training.watch import Watch

MakeLoaders = Callable[[int, int, int], dict[str, DataLoader[Any]]]
"""(start, rank, world) -> loaders by stream, each with one batch for every iteration from `start` on."""


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
        momentum: buffers to go on with, in the order of `parameters`; None: zeros.
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


class TrainingModule(pl.LightningModule):
    """Lightning's view of a `Method`.

    Args:
        method: built and in training mode; convolution weights are laid out channels-last.
        make_loaders: see `MakeLoaders`.
        config: settings of the run.
        start: iterations done before.
        momentum: momentum buffers to go on with; None: zeros, which equals a fresh SGD.
        critic: state of the critic's optimiser to go on with; None: a fresh one.
    """

    critic: CriticOptimizer

    def __init__(
        self,
        method: Method,
        make_loaders: MakeLoaders,
        config: TrainConfig,
        *,
        start: int = 0,
        momentum: list[Tensor] | None = None,
        critic: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.method, self.config, self.start = method, config, start
        self.watch = Watch()
        self._make_loaders, self._momentum, self._critic_state = make_loaders, momentum, critic or {}
        for parameter in method.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)

    def train_dataloader(self) -> CombinedLoader:
        """Build the loaders of this rank, beginning at `start`."""
        loaders = self._make_loaders(self.start, self.trainer.global_rank, self.trainer.world_size)
        left = self.config.iterations - self.start
        lengths = {name: len(loader) for name, loader in loaders.items()}
        if not loaders:
            raise UserError(
                "There is nothing to train on",
                found="no labeled and no unlabeled batches",
                expected="at least one stream with cases",
                do="check the split and train.batch_labeled, train.batch_unlabeled",
            )
        if any(length != left for length in lengths.values()):
            raise ValueError(f"loaders must have {left} batches, found {lengths}")
        return CombinedLoader(loaders, mode="min_size")

    def configure_optimizers(self) -> torch.optim.SGD:
        """Make the optimiser of the parameters that are trained, and beside it the critic's."""
        self.critic = CriticOptimizer(self.method, self._critic_state)
        parameters = [
            parameter
            for parameter in self.method.parameters()
            if parameter.requires_grad and not self.critic.owns(parameter)
        ]
        momentum, self._momentum = self._momentum, None
        return make_sgd(parameters, self.config, momentum, fused=self.device.type == "cuda")

    def momentum(self) -> list[Tensor]:
        """Return the momentum buffers, in the order of the parameters that are trained."""
        optimizer = self.trainer.optimizers[0]
        return [
            optimizer.state[parameter]["momentum_buffer"]
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def lr(self, iteration: int) -> float:
        """Return the learning rate of the step that follows `iteration` steps."""
        return self.config.lr * lr_factor(self.config.schedule, iteration / self.config.iterations)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Return the sum of the method's losses."""
        step = self.begin(self.start + batch_idx)
        self._batch = labeled, unlabeled = streams(batch)
        terms = self.method.losses(labeled, unlabeled, step)
        for name, term in terms.items():
            if term.dim() != 0:
                raise ValueError(f"loss {name} must be a scalar, found shape {tuple(term.shape)}")
        values = torch.stack([term.float() for term in terms.values()])
        self.watch.see(list(terms), values.detach(), step)
        return values.sum()

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Set the learning rate, take the step and the critic's, then let the method update its teacher."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr(self.start + batch_idx)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.critic.step(*self._batch, self.watch.step, self.trainer.precision_plugin)
        with torch.no_grad():
            self.method.after_step(self.watch.step)

    def begin(self, iteration: int) -> Step:
        """Seed torch's generators for the step that follows `iteration` steps, and return the step."""
        everywhere, own = step_seeds(self.config.seed, iteration, self.global_rank)
        seed_torch(everywhere, self.device)
        generator = torch.Generator(device=self.device).manual_seed(own)
        return Step(iteration=iteration, total=self.config.iterations, generator=generator)


def channels_last(image: Tensor) -> Tensor:
    """Copy (B, C, X, Y, Z) into the channels-last layout, also where C = 1.

    `contiguous` leaves a single channel as it is, as its layout is both; the first convolution then answers
    in the other layout, and the full-resolution maps are converted again and again.
    """
    return image.clone(memory_format=torch.channels_last_3d)


def streams(batch: Mapping[str, Any]) -> tuple[Batch, Batch]:
    """Return the labeled and the unlabeled batch; a stream that is absent has B = 0."""
    some = next(iter(batch.values()))["image"]
    images = {
        name: channels_last(batch[name]["image"]) if name in batch else some.new_zeros((0, *some.shape[1:]))
        for name in ("labeled", "unlabeled")
    }
    label, counted = (batch.get("labeled", {}).get(key) for key in ("label", "counted"))
    if label is None:
        label = some.new_zeros((0, *some.shape[2:]), dtype=torch.int64)
    strong = batch["unlabeled"].get("image_strong") if "unlabeled" in batch else images["unlabeled"]
    if strong is not None:
        strong = strong.contiguous(memory_format=torch.channels_last_3d)
    labeled = Batch(images["labeled"], label, counted=counted)
    return labeled, Batch(images["unlabeled"], None, strong)
