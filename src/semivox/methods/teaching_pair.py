"""Two networks that label unlabeled patches for each other, and what we added to the published methods.

With the defaults nothing is added: each network teaches what it says in the pass in which it learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from semivox.losses.mixing import cuboid_mask, exchange_masks, repeated
from semivox.losses.prediction import Prediction
from semivox.losses.prototypes import voxel_rows
from semivox.losses.pseudo_labels import Teaching
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import both, dice_loss, masked_mean, mean, nll
from semivox.losses.uncertainty import percentile, percentile_by_class
from semivox.methods.base import (
    Batch,
    PairMethod,
    PseudoLabel,
    Step,
    full_precision,
    update_ema,
    warm_decay,
    without_dropout,
)
from semivox.methods.supervision import LabelSupervised, Mixing
from semivox.nets import NetFactory


class Said(NamedTuple):
    """The pseudo-labels of a step, and where they are trusted; all (B, X, Y, Z)."""

    by_a: Tensor  # int64, what A teaches B
    by_b: Tensor  # int64, what B teaches A
    joint: Tensor  # int64, one label for both
    certain: Tensor  # boolean, where the joint label is taught
    reliable: Tensor  # boolean, where both networks agree and are certain


@dataclass(frozen=True)
class View:
    """What one of the two networks says in a step, with gradient, and what it teaches, without."""

    whole: Prediction  # of the labeled and then the unlabeled patches (or mixtures of both)
    taught: Prediction  # what teaches the other network on the same patches
    teaching: Teaching  # the unlabeled part of that, with its entropy
    features: Tensor  # of the unlabeled patches, (B, N, D), before the head's dropout
    count: int  # of labeled patches
    coarser: Sequence[Tensor] = ()  # logits of coarser scales, as `whole`; none without deep supervision

    @cached_property
    def labeled(self) -> Prediction:
        """The prediction of the labeled patches."""
        return self.whole[: self.count]

    @cached_property
    def unlabeled(self) -> Prediction:
        """The prediction of the unlabeled patches."""
        return self.whole[self.count :]


class TeachingPair(LabelSupervised, PairMethod):
    """A pair whose terms start from `views`: the base of `dual`, for any pair with pseudo-labels."""

    class Config(Mixing, LabelSupervised.Config, PairMethod.Config):
        teacher_decay: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="ours: above 0 moving averages of A and B teach; share that stays a step",
        )
        warmup_fraction: float = Field(
            0.0, ge=0, lt=1, description="ours: share of the run, at its start, that learns from labels only"
        )
        unsup_ramp: Literal["none", "sigmoid"] = Field(
            "none", description="ours: sigmoid: ramp up the terms between the networks after the warm-up"
        )
        ramp_fraction: float = Field(
            1.0, gt=0, le=1, description="ours: share of the run that this ramp takes"
        )
        unsup_weight: float = Field(
            1.0, ge=0, description="ours: weight of the terms on unlabeled patches after the ramp"
        )
        pseudo_dice: bool = Field(False, description="ours: Dice beside the cross-entropy with pseudo-labels")
        percentile_by: Literal["all", "class"] = Field(
            "all", description="ours: class: an entropy percentile for each predicted class"
        )

    needs_features = True
    config: Config

    def build(self, net: NetFactory) -> None:
        """Create A and B, and their averages if these are to teach."""
        super().build(net)
        copies = [deepcopy(one) for one in (self.net_a, self.net_b)] if self.config.teacher_decay else []
        self.teachers = nn.ModuleList(copies).requires_grad_(False)

    def after_step(self, step: Step) -> None:
        """Move the averages, if there are any."""
        for teacher, net in zip(self.teachers, (self.net_a, self.net_b), strict=False):
            update_ema(teacher, net, warm_decay(step.iteration, self.config.teacher_decay))

    def views(self, labeled: Batch, unlabeled: Batch, step: Step) -> tuple[Batch, View, View]:
        """Pass the patches of a step through A and B.

        Returns:
            The labeled batch (in the warm-up with mixtures, if asked for), and the views of A and of B.
        """
        if step.fraction < self.config.warmup_fraction:
            labeled, unlabeled = (self.config.with_mixtures(labeled, step), Batch(unlabeled.image[:0], None))
        images, teachings = self._inputs(labeled, unlabeled, step)
        count, found = len(labeled.image), []
        passes = self.feature_scales((self.net_a, self.net_b), images)
        with full_precision(images):
            for (features, logits, coarser), other in zip(passes, teachings, strict=True):
                whole = Prediction.of(logits)
                taught = whole if other is None else whole[:count].joined(other.prediction)
                teaching = other or Teaching.of(whole[count:])
                found.append(View(whole, taught, teaching, voxel_rows(features, count), count, coarser))
        return labeled, found[0], found[1]

    def weights(self, step: Step) -> tuple[float, float]:
        """Return the ramp, for terms on labeled patches, and w(t), for those on unlabeled ones.

        Both are 0 in the warm-up: there, pulling the networks together would pull the one that has found the
        foreground first back to the other.
        """
        cfg = self.config
        after = step.fraction - cfg.warmup_fraction
        ramp = 1.0 if cfg.unsup_ramp == "none" else sigmoid_rampup(after / cfg.ramp_fraction)
        ramp = ramp if after >= 0 else 0.0
        step.note("weight_unsup", cfg.unsup_weight * ramp)
        return ramp, cfg.unsup_weight * ramp

    def trusted(
        self, a: Teaching, b: Teaching, alpha: float, views: Sequence[View] = (), step: Step | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the voxels where A or B is certain, and those where both are and agree; (B, X, Y, Z) boolean.

        Certain means an entropy of at most its alpha-th percentile over the unlabeled voxels. Where `views`
        are given, that of the second kind of voxels also counts the labeled ones.
        """
        (low_a, limit_a), (low_b, limit_b) = (self._low(one, alpha) for one in (a, b))
        certain = low_a | low_b
        if step is not None:
            step.note("threshold_a", mean(limit_a))
            step.note("threshold_b", mean(limit_b))
        if views:
            low_a, low_b = (self._low(v.teaching, alpha, v.labeled.entropy())[0] for v in views)
        return certain, (a.prediction.label == b.prediction.label) & low_a & low_b

    def _low(self, teaching: Teaching, alpha: float, others: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the taught voxels whose entropy is at most its alpha-th percentile (0..100), and return that.

        The percentile is over all voxels, with further entropies `others`, or over those of each class.
        """
        entropy = teaching.own_entropy
        if self.config.percentile_by == "class":
            label, classes = teaching.own_label, teaching.prediction.num_classes
            limit = percentile_by_class(entropy, label, classes, alpha)
        else:
            limit = percentile(entropy if others is None else torch.cat([entropy, others]), alpha)
        return both(teaching.entropy <= limit, teaching.taught), limit

    def said(self, a: Teaching, b: Teaching, views: Sequence[View] = (), step: Step | None = None) -> Said:
        """Make the pseudo-labels of a step; `views` are those of A and B, in a diagnosis there are none."""
        raise NotImplementedError

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the labels of "a" and "b", what they teach each other and both, and where it is trusted."""
        a, b = self.teachings(image)
        said = self.said(a, b)
        return {
            "a": PseudoLabel.of(a.prediction.probs),
            "b": PseudoLabel.of(b.prediction.probs),
            "cps_a": PseudoLabel(said.by_a),
            "cps_b": PseudoLabel(said.by_b),
            "joint": PseudoLabel(said.joint),
            "filtered": PseudoLabel(said.joint, valid=said.certain),
            "reliable": PseudoLabel(a.prediction.label, valid=said.reliable),
        }

    def pseudo_losses(
        self,
        views: Sequence[View],
        labels: Sequence[Tensor],
        valid: Tensor | None,
        weights: Sequence[Tensor | None] = (None, None),
        factor: Tensor | float = 1.0,
    ) -> Tensor:
        """Sum over the networks the mean cross-entropy with a pseudo-label, times `factor`.

        Each network learns its label on the `valid` voxels, by its weights; all (B, X, Y, Z). The Dice of
        `pseudo_dice` is added as it is.
        """
        total = torch.zeros((), device=labels[0].device)
        for view, label, weight in zip(views, labels, weights, strict=True):
            entropy = nll(view.unlabeled.log_probs, label)
            total = total + factor * masked_mean(entropy if weight is None else weight * entropy, valid)
            if self.config.pseudo_dice and len(label):
                total = total + dice_loss(view.unlabeled.probs, label, mask=valid)
        return total

    @torch.no_grad()
    def teachings(self, image: Tensor, *pasted: Tensor | None) -> tuple[Teaching, Teaching]:
        """Ask A and B, or their averages, about whole patches, and put in the truth that was pasted.

        Dropout is active only where the networks themselves teach, without mixtures: there the published
        pass is the one that learns.
        """
        found = []
        calm = self.config.mix == "paste" or self.config.teacher_decay > 0
        for net in self.teachers or (self.net_a, self.net_b):
            with without_dropout(net) if calm else nullcontext():
                logits = net(image)
            with full_precision(image):
                found.append(Teaching.of(Prediction.of(logits), *pasted))
        return found[0], found[1]

    def _inputs(
        self, labeled: Batch, unlabeled: Batch, step: Step
    ) -> tuple[Tensor, Sequence[Teaching | None]]:
        """Return the images of the step, labeled ones first; and what is taught, None: by the same pass."""
        if not len(unlabeled.image):
            return labeled.image, (None, None)
        if self.config.mix == "none" or not len(labeled.image):
            images = torch.cat([labeled.image, unlabeled.image])
            return images, self.teachings(unlabeled.image) if self.config.teacher_decay else (None, None)
        count = len(unlabeled.image)
        mask = cuboid_mask(unlabeled.image.shape[2:], self.config.mix_cuboid, step.generator)
        known = exchange_masks(count, mask)
        mixed = torch.where(known.unsqueeze(1), repeated(labeled.image, count), unlabeled.image)
        valid = None if labeled.valid is None else repeated(labeled.valid, count)
        taught = self.teachings(unlabeled.image, repeated(labeled.target, count), known, valid)
        return torch.cat([labeled.image, mixed]), taught
