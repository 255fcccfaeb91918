"""Bidirectional copy-paste between labeled and unlabeled patches."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

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
    phases share one run (published: 2000 + 15000 iterations) and one optimiser, whose momentum is kept. The
    published code starts the second phase from, and reports, the checkpoints that score best on its test
    cases (read in the code; issue 19 there explains it as staying comparable with earlier work); here each
    phase ends with its last iteration. Of unequal or odd numbers of patches some are used twice.
    """

    batch: ClassVar[tuple[int, int]] = (4, 4)

    class Config(TeacherMethod.Config):
        pretraining: float = Field(
            2000 / 17000, ge=0, lt=1, description="share of the run that mixes labeled patches only"
        )
        alpha: float = Field(0.5, ge=0, description="weight of the pseudo-labeled part of a mixture")
        cuboid: float = Field(2 / 3, gt=0, lt=1, description="side of the cuboid / side of the patch")
        largest_component: bool = Field(
            True, description="keep only the largest component of each class in pseudo-labels"
        )
        neighbours: Neighbours = Field(26, description="connectivity of components; 18 for Pancreas-CT")
        teacher_mode: Literal["train", "eval"] = Field(
            "train",
            description="of the teacher: train: dropout, batch statistics; eval: the student's running ones",
        )

    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" on labeled and "mix" on pseudo-labeled parts; the latter is 0 in pre-training."""
        nothing = labeled.image.new_zeros((), dtype=torch.float32, requires_grad=True)
        if not len(labeled.image):
            return {"sup": nothing, "mix": nothing}
        mask = cuboid_mask(labeled.image.shape[2:], self.config.cuboid, step.generator)
        count = (max(len(labeled.image), len(unlabeled.image)) + 1) // 2
        l_a, l_b = halves(labeled.image, count)
        y_a, y_b = halves(labeled.target, count)
        if self._pretrains(step) or not len(unlabeled.image):
            mixture = self._student(paste(l_a, l_b, mask))
            valid = None if labeled.valid is None else paste(*halves(labeled.valid, count), mask)
            with full_precision(mask):
                return {"sup": region_loss(mixture, paste(y_a, y_b, mask), valid), "mix": nothing}

        u_a, u_b = halves(unlabeled.image, count)
        pseudo_a, pseudo_b = self._pseudo_label(u_a), self._pseudo_label(u_b)
        mix_1, mix_2 = self._student(paste(l_a, u_a, mask)), self._student(paste(u_b, l_b, mask))
        c_a, c_b = (None, None) if labeled.valid is None else halves(labeled.valid, count)
        with full_precision(mask):
            sup = region_loss(mix_1, y_a, both(mask, c_a)) + region_loss(mix_2, y_b, both(~mask, c_b))
            mix = region_loss(mix_1, pseudo_a, ~mask) + region_loss(mix_2, pseudo_b, mask)
        step.note("pseudo_foreground", (torch.cat([pseudo_a, pseudo_b]) > 0).float().mean())
        return {"sup": sup, "mix": self.config.alpha * mix}

    def after_step(self, step: Step) -> None:
        """Move the teacher by a constant decay; in pre-training it is the student's copy."""
        pretrains = self._pretrains(step)
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
        taught = self._cleaned(found["teacher"].label, self.net.num_classes)
        return {**found, "taught": PseudoLabel(taught)}

    def _pretrains(self, step: Step) -> bool:
        return step.fraction < self.config.pretraining

    def _student(self, image: Tensor) -> Prediction:
        logits = self.net(image)
        with full_precision(image):
            return Prediction.of(logits)

    @torch.no_grad()
    def _pseudo_label(self, image: Tensor) -> Tensor:
        """Take the most probable class of the teacher, cleaned; (B, X, Y, Z) int64."""
        logits = self.teacher(image)
        return self._cleaned(most_probable(logits)[1], logits.shape[1])

    def _cleaned(self, label: Tensor, num_classes: int) -> Tensor:
        if not self.config.largest_component:
            return label
        return largest_components(label, num_classes, self.config.neighbours)
