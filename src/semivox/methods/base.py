"""What a method is: a plain module that turns patches into losses, and images into probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from semivox.config import Settings
from semivox.losses.prediction import most_probable
from semivox.nets import NetFactory
from semivox.nets.network import with_features


class Batch(NamedTuple):
    """Patches of one stream; an empty batch has B = 0 and the other stream's patch size."""

    image: Tensor  # (B, C, X, Y, Z) float
    label: Tensor | None  # (B, X, Y, Z) int64 class indices; None: unlabeled
    valid: Tensor | None = None  # (B, X, Y, Z) bool, the voxels that have a label; None: all
    soft: Tensor | None = None  # (B, K, X, Y, Z) shares of the classes, of labels or pseudo-labels

    @property
    def target(self) -> Tensor:
        """The label; of an empty batch one without elements."""
        if self.label is not None:
            return self.label
        if len(self.image):
            raise ValueError("labeled patches without a label")
        return self.image.new_zeros(self.image.shape[:1] + self.image.shape[2:], dtype=torch.int64)

    @property
    def weight(self) -> Tensor:
        """1 at each voxel that has a label, else 0; (B, X, Y, Z), of the image's type."""
        valid = torch.ones_like(self.target) if self.valid is None else self.valid
        return valid.to(self.image.dtype)


class PseudoLabel(NamedTuple):
    """A label that a method makes for unlabeled patches, for `Method.pseudo_labels`."""

    label: Tensor  # (B, X, Y, Z) int64 class indices
    valid: Tensor | None = None  # (B, X, Y, Z) bool, where it is taught or trusted; None: everywhere
    probs: Tensor | None = None  # (B, K, X, Y, Z), if the label is one network's own: its probabilities

    @classmethod
    def of(cls, probs: Tensor) -> Self:
        """Take the most probable class of one network's probabilities (B, K, X, Y, Z)."""
        return cls(most_probable(probs)[1], probs=probs)


@dataclass
class Step:
    """Where the run stands, and what to log beside the losses.

    Args:
        iteration: 0 at the first step.
        total: iterations of the run.
        generator: seeded by (seed, iteration), on the images' device.
    """

    iteration: int
    total: int
    generator: torch.Generator
    notes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def fraction(self) -> float:
        """The share of the run that is done, 0..1."""
        return self.iteration / self.total

    def note(self, name: str, value: Tensor | float) -> None:
        """Record a scalar for the log; it is detached and stays on its device."""
        self.notes[name] = value.detach() if isinstance(value, Tensor) else torch.tensor(value)


class Method(nn.Module):
    """A training method; subclasses define `Config`, `build`, `losses` and `predict`.

    It sees tensors and the network factory only: no files, loggers, devices or ranks. State that must
    survive a resume is a parameter or a buffer.
    """

    class Config(Settings):
        """The method's options; defaults are the published ones."""

    batch: ClassVar[tuple[int, int]] = (2, 2)  # labeled, unlabeled patches a step
    without_unlabeled: ClassVar[str | None] = None  # the method to take where no scan is unlabeled
    soft_labels: ClassVar[bool] = False  # whether `Batch.soft` is wanted
    staged: ClassVar[bool] = False  # whether its first stage takes labels alone
    partial_labels: ClassVar[bool] = True  # False: some loss uses a label also where `Batch.valid` is False
    needs_features: ClassVar[bool] = False  # whether the networks must have features, see `Segmenter`
    needs_levels: ClassVar[bool] = False  # of these networks, also encoder and decoder
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def build(self, net: NetFactory) -> None:
        """Create the networks."""
        raise NotImplementedError

    def make(self, net: NetFactory, name: str, **overrides: Any) -> Any:
        """Create one network, with what the method needs of it."""
        if self.needs_features:
            return with_features(net, name, levels=self.needs_levels, **overrides)
        return net(name, **overrides)

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute the weighted scalars whose sum is minimised; exactly 0 for terms over an empty batch."""
        raise NotImplementedError

    def stages(self, iterations: int) -> tuple[float, ...]:
        """Return the shares that the stages take of a run of so many iterations.

        Each stage has a learning-rate schedule of its own. All but the first begin with the averaged weights,
        a fresh optimiser and, with `soft_labels`, new pseudo-labels, see `teach`; the first of a `staged`
        method has no unlabeled batches.
        """
        return (1.0,)

    def teach(self, probs: Tensor) -> Tensor:
        """Turn probabilities of whole scans (B, K, X, Y, Z) into the pseudo-labels of the next stage."""
        return probs

    def critic_parameters(self) -> list[dict[str, Any]]:
        """List the parameter groups of a critic, as `torch.optim.Adam` takes them; none without a critic.

        A second optimiser trains them, the first one does not.
        """
        return []

    def critic_losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute what the critic minimises, on the batch of the step that the networks have just taken."""
        return {}

    def after_step(self, step: Step) -> None:
        """Update what is not trained by gradients, after the steps of the optimisers."""

    def predict(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> probabilities (B, K, X, Y, Z) float32."""
        return self.combine(self.predict_members(image))

    def predict_members(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the probabilities of each network alone, by name."""
        return {type(self).__name__.lower(): self.predict(image)}

    def combine(self, members: Mapping[str, Tensor]) -> Tensor:
        """Make the prediction of the members' probabilities: their mean, unless a method says otherwise."""
        return torch.stack(list(members.values())).mean(dim=0)

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show what the networks say of unlabeled patches (B, C, X, Y, Z), and what is taught of it, by name.

        Called by `train --diagnose` only: in training mode, without gradients, on a copy of the method.
        A method that makes its own labels or masks overrides this to show them.
        """
        return {name: PseudoLabel.of(probs) for name, probs in self.predict_members(image).items()}


def full_precision(image: Tensor) -> AbstractContextManager[None]:
    """Suspend autocast on the image's device, for loss mathematics in float32."""
    kind = "cpu" if image.is_meta else image.device.type  # on meta, where costs are counted, there is none
    context: AbstractContextManager[None] = torch.autocast(kind, enabled=False)
    return context


@contextmanager
def switched_off(flag: str, parts: Iterable[object]) -> Iterator[None]:
    """Make an attribute of modules or parameters False inside the block, where it is True."""
    found = [part for part in parts if getattr(part, flag)]
    for part in found:
        setattr(part, flag, False)
    try:
        yield
    finally:
        for part in found:
            setattr(part, flag, True)


def without_dropout(net: nn.Module) -> AbstractContextManager[None]:
    """Switch dropout off inside the block; normalisation stays in the mode it has."""
    return switched_off("training", (part for part in net.modules() if isinstance(part, nn.Dropout3d)))


@contextmanager
def fixed(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode without gradients for its parameters; restore it afterwards."""
    with switched_off("training", module.modules()), switched_off("requires_grad", module.parameters()):
        yield


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Set the teacher's parameters to decay * teacher + (1 - decay) * student; its buffers stay its own."""
    old: list[Tensor] = list(teacher.parameters())
    torch._foreach_lerp_(old, list(student.parameters()), 1.0 - decay)


@torch.no_grad()
def copy_buffers(teacher: nn.Module, student: nn.Module) -> None:
    """Copy the student's buffers, e.g. running statistics, to the teacher."""
    for old, new in zip(teacher.buffers(), student.buffers(), strict=True):
        old.copy_(new)


def warm_decay(done: int, decay: float) -> float:
    """Compute min(1 - 1 / (done + 1), decay): the first steps average over fewer."""
    return min(1.0 - 1.0 / (done + 1), decay)


def probabilities(net: nn.Module, image: Tensor) -> Tensor:
    """Compute the softmax of the network's logits in float32, (B, K, X, Y, Z)."""
    return torch.softmax(net(image).float(), dim=1)


class SingleMethod(Method):
    """A method with one network."""

    class Config(Method.Config):
        net: str = Field("vnet", description="network")

    config: Config

    def build(self, net: NetFactory) -> None:
        self.net = self.make(net, self.config.net)

    def predict(self, image: Tensor) -> Tensor:
        return probabilities(self.net, image)

    def predict_members(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the softmax of the one network, by its name."""
        return {self.config.net.rpartition(":")[2]: self.predict(image)}


class TeacherMethod(SingleMethod):
    """A student and its teacher, the exponential moving average (EMA) of the student's parameters.

    The teacher stays in training mode with the student, as published: its dropout is active and its
    normalisation uses the statistics of its own batches, which are not averaged. Prediction is the student's.
    """

    class Config(SingleMethod.Config):
        ema_decay: float = Field(0.99, ge=0, le=1, description="EMA: share of the teacher that stays")

    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the student, and the teacher as its copy without gradients."""
        super().build(net)
        self.teacher = deepcopy(self.net).requires_grad_(False)

    def after_step(self, step: Step) -> None:
        """Move the teacher; the first steps average over fewer."""
        update_ema(self.teacher, self.net, warm_decay(step.iteration, self.config.ema_decay))

    def predict_members(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the softmax of the student and of the teacher."""
        return {"student": probabilities(self.net, image), "teacher": probabilities(self.teacher, image)}

    def combine(self, members: Mapping[str, Tensor]) -> Tensor:
        """Take the student alone."""
        return members["student"]


class PairMethod(Method):
    """A method with two networks, A and B, whose softmax maps are averaged at inference."""

    class Config(Method.Config):
        nets: tuple[str, str] = Field(("resnet34", "vnet"), description="networks A and B")

    config: Config

    def build(self, net: NetFactory) -> None:
        """Create A and B with independent initial weights."""
        self.net_a, self.net_b = (self.make(net, name) for name in self.config.nets)

    def predict_members(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the softmax of A and of B, by network name (with _a and _b if both have the same)."""
        name_a, name_b = (name.rpartition(":")[2] for name in self.config.nets)
        if name_a == name_b:
            name_a, name_b = f"{name_a}_a", f"{name_b}_b"
        return {name_a: probabilities(self.net_a, image), name_b: probabilities(self.net_b, image)}

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the labels of "a" and of "b"."""
        found = self.predict_members(image).values()
        return {name: PseudoLabel.of(probs) for name, probs in zip("ab", found, strict=True)}
