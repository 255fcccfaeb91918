"""Bidirectional copy-paste between labeled and unlabeled patches."""

from __future__ import annotations

from math import ceil
from typing import Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from semivox.losses.components import Neighbours, largest_components
from semivox.losses.mixing import cuboid_mask, halves, paste, region_loss
from semivox.losses.prediction import Prediction, most_probable
from semivox.losses.supervised import both
from semivox.methods.base import (
    Batch,
    PseudoLabel,
    Step,
    TeacherMethod,
    copy_buffers,
    full_precision,
    update_ema,
)


class Mixture(NamedTuple):
    """Patches that are mixed from two sets, with their mixed label."""

    image: Tensor  # (B, C, X, Y, Z)
    label: Tensor  # (B, X, Y, Z) int64, pseudo-labels included
    known: Tensor  # (X, Y, Z) or (B, X, Y, Z) boolean, the voxels of labeled patches that have a label
    taught: Tensor | None  # (X, Y, Z) boolean, the voxels of unlabeled patches; None: there are none


class CopyPaste(BaseModel):
    """Options of methods that exchange cuboids after a phase that learns from labeled patches alone."""

    pretraining: float = Field(
        2000 / 17000, ge=0, lt=1, description="share of the run that mixes labeled patches only"
    )
    fresh_optimizer: bool = Field(
        False,
        description="begin the second phase with a fresh optimiser, its own learning-rate schedule and, with"
        " train.average, the averaged weights",
    )
    alpha: float = Field(0.5, ge=0, description="weight of the pseudo-labeled part of a mixture")
    cuboid: float = Field(2 / 3, gt=0, lt=1, description="side of the cuboid / side of the patch")
    largest_component: bool = Field(
        True, description="keep only the largest component of each class in pseudo-labels"
    )
    neighbours: Neighbours = Field(26, description="connectivity of components; 18 for Pancreas-CT")

    def border(self, iterations: int) -> int:
        """Return the first iteration of the second phase."""
        return ceil(self.pretraining * iterations - 1e-9)

    def shares(self, iterations: int) -> tuple[float, ...]:
        """Return the stages of a run, see `Method.stages`."""
        first = self.border(iterations) / iterations
        return (first, 1 - first) if self.fresh_optimizer and 0 < first < 1 else (1.0,)

    def pretrains(self, step: Step) -> bool:
        """Whether the step belongs to the first phase."""
        return step.iteration < self.border(step.total)

    def cleaned(self, label: Tensor, num_classes: int) -> Tensor:
        """Keep what is taught of a pseudo-label (B, X, Y, Z)."""
        return largest_components(label, num_classes, self.neighbours) if self.largest_component else label

    @torch.no_grad()
    def taught(self, teacher: nn.Module, image: Tensor) -> Tensor:
        """Take the most probable class of the teacher, cleaned; (B, X, Y, Z) int64."""
        logits = teacher(image)
        return self.cleaned(most_probable(logits)[1], logits.shape[1])

    def mixtures(
        self, labeled: Batch, unlabeled: Batch, teacher: nn.Module, step: Step
    ) -> tuple[Mixture, ...]:
        """Mix labeled around unlabeled patches, and unlabeled around labeled ones.

        In the first phase, and without unlabeled patches, one half of the labeled ones around the other half.
        """
        mask = cuboid_mask(labeled.image.shape[2:], self.cuboid, step.generator)
        count = (max(len(labeled.image), len(unlabeled.image)) + 1) // 2
        (l_a, l_b), (y_a, y_b) = halves(labeled.image, count), halves(labeled.target, count)
        c_a, c_b = (None, None) if labeled.valid is None else halves(labeled.valid, count)
        if self.pretrains(step) or not len(unlabeled.image):
            known = torch.ones_like(mask) if c_a is None or c_b is None else paste(c_a, c_b, mask)
            return (Mixture(paste(l_a, l_b, mask), paste(y_a, y_b, mask), known, None),)
        u_a, u_b = halves(unlabeled.image, count)
        p_a, p_b = self.taught(teacher, u_a), self.taught(teacher, u_b)
        step.note("pseudo_foreground", (torch.cat([p_a, p_b]) > 0).float().mean())
        return (
            Mixture(paste(l_a, u_a, mask), paste(y_a, p_a, mask), both(mask, c_a), ~mask),
            Mixture(paste(u_b, l_b, mask), paste(p_b, y_b, mask), both(~mask, c_b), mask),
        )


class BCP(TeacherMethod):
    """A student trained on mixtures of labeled and unlabeled patches, the latter labeled by an EMA teacher.

    A cuboid (M = 0 inside) is exchanged between both kinds, in both directions; the target is mixed likewise
    from labels and the teacher's pseudo-labels, of which the largest component of each class is kept:

        mix_1 = l_a M + u_a (1 - M),  mix_2 = u_b M + l_b (1 - M)
        L = sum over mixtures of R(labeled part) + alpha R(unlabeled part),  R = (CE + Dice) / 2

    R is a mean over its part alone, its Dice one of each sample and class with a linear denominator. Before,
    labeled patches are mixed among themselves; then the teacher starts as the student's copy. Its average has
    no warm-up. As published it works in training mode: dropout is active, normalisation uses the batch.

    Source: Bai et al., "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023,
    arXiv 2305.00673. Published for one foreground class; here every class keeps its largest component. Both
    phases share one run (published: 2000 + 15000 iterations) and one optimiser, whose momentum is kept; with
    `fresh_optimizer` the second phase has its own, as published for the left atrium (for Pancreas-CT it is
    kept): presets `la-8-bcp` and `pancreas-12-bcp`. The published code starts the second phase from, and
    reports, the checkpoints that score best on its test cases (read in the code; issue 19 there explains it
    as staying comparable with earlier work); here each phase ends with its last iteration. Of unequal or odd
    numbers of patches some are used twice.
    """

    batch = (4, 4)

    class Config(CopyPaste, TeacherMethod.Config):
        teacher_mode: Literal["train", "eval"] = Field(
            "train",
            description="of the teacher: train: dropout, batch statistics; eval: the student's running ones",
        )

    config: Config

    def stages(self, iterations: int) -> tuple[float, ...]:
        """Return one stage, or with `fresh_optimizer` one for each phase."""
        return self.config.shares(iterations)

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" on labeled and "mix" on pseudo-labeled parts; the latter is 0 in pre-training."""
        cfg, nothing = self.config, labeled.image.new_zeros((), dtype=torch.float32, requires_grad=True)
        if not len(labeled.image):
            return {"sup": nothing, "mix": nothing}
        mixtures = cfg.mixtures(labeled, unlabeled, self.teacher, step)
        logits = [self.net(mix.image) for mix in mixtures]
        with full_precision(labeled.image):
            students = list(zip(map(Prediction.of, logits), mixtures, strict=True))
            sup = [region_loss(own, mix.label, mix.known) for own, mix in students]
            pseudo = [
                region_loss(own, mix.label, mix.taught) for own, mix in students if mix.taught is not None
            ]
        return {
            "sup": torch.stack(sup).sum(),
            "mix": cfg.alpha * torch.stack(pseudo).sum() if pseudo else nothing,
        }

    def after_step(self, step: Step) -> None:
        """Move the teacher by a constant decay; in pre-training it is the student's copy."""
        pretrains = self.config.pretrains(step)
        update_ema(self.teacher, self.net, 0.0 if pretrains else self.config.ema_decay)
        if pretrains or self.config.teacher_mode == "eval":
            copy_buffers(self.teacher, self.net)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all networks; the teacher's may be fixed by `teacher_mode`."""
        super().train(mode)
        if self.config.teacher_mode == "eval" and hasattr(self, "teacher"):
            self.teacher.eval()
        return self

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the labels of the student and of the teacher, and "taught", the teacher's after cleaning."""
        found = super().pseudo_labels(image)
        taught = self.config.cleaned(found["teacher"].label, self.net.num_classes)
        return {**found, "taught": PseudoLabel(taught)}
