"""AD-MT: two teachers that follow the student in turns, each while it sees another kind of strong view."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from math import log
from random import Random
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from semivox.losses.mixing import cutmix_boxes, paste
from semivox.losses.prediction import Prediction, most_probable
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import cross_entropy, mean
from semivox.methods.base import (
    Batch,
    PseudoLabel,
    Step,
    TeacherMethod,
    fixed,
    full_precision,
    probabilities,
    update_ema,
    warm_decay,
)
from semivox.methods.strong_views import jitter
from semivox.methods.supervision import LabelSupervised
from semivox.nets import NetFactory

RAMP_FRACTION, RAMP_STEPS = 6000 / 15000, 40  # published: a step each 150 of 15000 iterations
COPIES = 40  # pairs of iterations in which a teacher is the student's copy
Mix = Callable[[Tensor], Tensor]
"""(B, ..., X, Y, Z) -> the same, mixed like the strong view."""


class Taught(NamedTuple):
    """What both teachers say of unlabeled patches; all (B, X, Y, Z), without gradient."""

    label: Tensor  # int64
    confidence: Tensor  # probability of that label, 0..1
    conflict: Tensor  # boolean, where the labels of the two teachers differ

    @classmethod
    def of(cls, one: Prediction, two: Prediction) -> Self:
        """Average both, at each voxel with the weights exp(-H), H the entropy in bits."""
        weight = torch.sigmoid((two.entropy() - one.entropy()) / log(2)).unsqueeze(1)
        confidence, label = most_probable(weight * one.probs + (1 - weight) * two.probs)
        return cls(label, confidence, one.label != two.label)

    def corrected(self, student: Prediction) -> Self:
        """Take the student's label where the teachers are in conflict and it is surer of another one."""
        surer = (student.label != self.label) & (student.confidence > self.confidence) & self.conflict
        label = torch.where(surer, student.label, self.label)
        return self._replace(label=label, confidence=torch.where(surer, student.confidence, self.confidence))

    def mixed(self, mix: Mix) -> Self:
        """Mix all of it."""
        return type(self)(*map(mix, self))


class ADMT(LabelSupervised, TeacherMethod):
    """Two EMA teachers follow the student in turns; it learns from both, the surer one weighing more.

    The turn changes after 1 to 19 iterations. While it is teacher 1's, the student's strong view of unlabeled
    patches has other intensities; while it is teacher 2's, it is CutMix among them. That keeps the teachers
    different. With q_k and H_k (bits) the teachers' softmax of the weak view and its entropy,

        w = e^(-H_1) / (e^(-H_1) + e^(-H_2)),  q = w q_1 + (1 - w) q_2,  t = argmax q,  k = max q;
        L = (CE + Dice) / 2 + 2 r(t) L_u,  L_u = mean over the voxels with k >= 0.8 of CE(strong view, t)

    with Dice over all classes. Where the teachers' labels differ, the student's label of the weak view
    replaces t if its confidence is above k. r rises in 40 steps over the first 40 % of the run. The teacher
    whose turn it is works in training mode, the other one with its running statistics, which are averaged
    too. In the first 80 iterations a teacher is the student's copy. Only the student predicts.

    `variant: released` reproduces the released code (commit 03ef84c) in one point: in turns of teacher 2 it
    mixes t, k and the conflict, but not the student's prediction, and so compares different voxels (found by
    reading it).

    Source: Zhao et al., "Alternate Diverse Teaching for Semi-supervised Medical Image Segmentation", ECCV
    2024, arXiv 2311.17325. The released code trains 15000 iterations, reports the checkpoint that scores best
    on the test list, and keeps the largest component. Its three networks begin with different weights; here
    the teachers begin as copies of the student. Turns are random, but the same in every run, so that a
    resumed run knows whose turn it is.
    """

    class Config(LabelSupervised.Config, TeacherMethod.Config):
        variant: Literal["paper", "released"] = Field(
            "paper", description="released: the student's prediction is not mixed with the pseudo-label"
        )
        weight_max: float = Field(2.0, ge=0, description="weight of the pseudo-label at the end of its ramp")
        threshold: float = Field(0.8, ge=0, le=1, description="confidence from which a label is taught")
        longest_turn: int = Field(
            19, ge=1, description="most iterations of a turn; published: half an epoch of the unlabeled cases"
        )

    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the student, and both teachers as its copies without gradients."""
        super().build(net)
        self.second_teacher = deepcopy(self.teacher)

    @property
    def teachers(self) -> tuple[nn.Module, nn.Module]:
        """Teacher 1, of changed intensities, and teacher 2, of mixtures."""
        return self.teacher, self.second_teacher

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" and "pseudo"."""
        cfg, count, image = self.config, len(labeled.image), unlabeled.image
        weight = cfg.weight_max * sigmoid_rampup(step.fraction / RAMP_FRACTION, RAMP_STEPS)
        step.note("weight", weight)
        images = [labeled.image]
        if len(image):
            active = turn(step.iteration, cfg.longest_turn)
            step.note("teacher", active + 1.0)
            taught = self._teach(image, active)
            strong, mix = self._strong_view(image, active, step)
            images += [image, strong]
        logits, *coarser = self.scales(self.net, torch.cat(images))
        with full_precision(image):
            prediction = Prediction.of(logits)
            own = prediction[:count]
            sup = 0.5 * self.supervised(own, labeled, step, coarser, background=True)
            if not len(image):
                return {"sup": sup, "pseudo": torch.zeros_like(sup)}
            weak, learning = prediction[count : count + len(image)], prediction[count + len(image) :]
            if cfg.variant == "paper":
                taught = taught.corrected(weak).mixed(mix)
            else:
                taught = taught.mixed(mix).corrected(weak)
            sure = taught.confidence >= cfg.threshold
            step.note("sure_share", mean(sure))
            step.note("conflict_share", mean(taught.conflict))
            return {"sup": sup, "pseudo": weight * cross_entropy(learning.log_probs, taught.label, sure)}

    @torch.no_grad()
    def _teach(self, image: Tensor, active: int) -> Taught:
        """Ask both teachers, the one whose turn it is in training mode."""
        logits = []
        for index, teacher in enumerate(self.teachers):
            with nullcontext() if index == active else fixed(teacher):
                logits.append(teacher(image))
        with full_precision(image):
            return Taught.of(*map(Prediction.of, logits))

    def _strong_view(self, image: Tensor, active: int, step: Step) -> tuple[Tensor, Mix]:
        """Return the strong view, and what mixes values of the weak view's voxels alike."""
        if active == 0:
            return jitter(image, step.generator), lambda values: values
        order = torch.randperm(len(image), generator=step.generator, device=image.device)
        inside = cutmix_boxes(len(image), image.shape[2:], step.generator)

        def mix(values: Tensor) -> Tensor:
            mask = inside if values.dim() == inside.dim() else inside.unsqueeze(1)
            return paste(values[order], values, mask)

        return mix(image), mix

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        """Move the teacher whose turn it is, its running statistics included; the first steps copy."""
        decay = warm_decay(max(step.iteration // 2 - COPIES, 0), self.config.ema_decay)
        teacher = self.teachers[turn(step.iteration, self.config.longest_turn)]
        update_ema(teacher, self.net, decay)
        for old, new in zip(teacher.buffers(), self.net.buffers(), strict=True):
            old.copy_(old.lerp(new, 1.0 - decay) if old.is_floating_point() else new)

    def predict_members(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the softmax of the student and of both teachers."""
        names = ("student", "teacher_1", "teacher_2")
        nets = (self.net, *self.teachers)
        return {name: probabilities(net, image) for name, net in zip(names, nets, strict=True)}

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the labels of all three networks, and "taught", as in a turn of teacher 1."""
        found = super().pseudo_labels(image)
        with full_precision(image):
            taught = self._teach(image, 0).corrected(Prediction.of(self.net(image)))
        sure = taught.confidence >= self.config.threshold
        return {**found, "taught": PseudoLabel(taught.label, sure)}


def turn(iteration: int, longest: int) -> int:
    """Return 0 or 1, whose turn it is; it changes after 1 to `longest` iterations, each as likely."""
    return bisect(_changes(longest, 2 ** iteration.bit_length()), iteration) % 2


@cache
def _changes(longest: int, iterations: int) -> list[int]:
    """List the iterations, up to so many, at which the turn changes."""
    lengths, changes = Random(0), [0]
    while changes[-1] <= iterations:
        changes.append(changes[-1] + lengths.randint(1, longest))
    return changes[1:]
