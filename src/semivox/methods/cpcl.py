"""CPCL: prototypes of labeled patches segment unlabeled ones, and the other way round."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import mean_squared_error
from semivox.losses.mixing import repeated
from semivox.losses.prediction import Prediction, widen
from semivox.losses.prototypes import cosines, weighted_prototypes
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import both, cross_entropy, mean, onehot
from semivox.losses.uncertainty import add_noise
from semivox.methods.base import Batch, Step, TeacherMethod, full_precision
from semivox.methods.supervision import LabelSupervised
from semivox.nets.blocks import enlarge

RAMP_FRACTION, RAMP_STEPS = 6000 / 10000, 40  # published: a step each 150 of 10000 iterations
LEVEL = 1  # the decoder level whose features are compared; as published at half resolution


class CPCL(LabelSupervised, TeacherMethod):
    """Prototypes carry the labels to the unlabeled patches and back.

    L = (CE + Dice) / 2 + lambda(t) (L_L2U + 10 L_U2L), with Dice over all classes. A prototype is the mean
    feature of one class in one patch, weighted by its probability; a voxel's score is softmax(20 cosine) over
    the classes. L2U: prototypes of labeled patches (student) score the unlabeled features (teacher); mean
    squared difference to the teacher's softmax. U2L: prototypes of the unlabeled patches (teacher, where its
    label says so) score the labeled features (student); cross-entropy to the label. lambda(t) = 0.1 r(t) in
    40 steps over the first 60 % of the run. Only the student predicts.

    Patches are matched one to one; if there are more of one kind, they take turns. Stability, a mean squared
    difference of logits between student and teacher under noise on the whole batch, belongs to the released
    code: the paper sets out to do without such consistency.

    `variant: released` reproduces the released code (commit 25b6332): its feature maps leave the networks
    detached, so L_L2U and L_U2L carry no gradient and stability alone learns from unlabeled patches (checked
    by running its functions); its L_U2L applies softmax twice. To see what prototypes bring, compare it with
    `variant: paper, stability: true`. Trilinear upsampling has no deterministic backward pass on CUDA.

    Source: Xu et al., "All-Around Real Label Supervision: Cyclic Prototype Consistency Learning for
    Semi-supervised Medical Image Segmentation", JBHI 26(7), 2022, arXiv 2109.13930.
    """

    class Config(LabelSupervised.Config, TeacherMethod.Config):
        variant: Literal["paper", "released"] = Field(
            "paper", description="prototype terms with gradient, or as the released code has them, without"
        )
        stability: bool | None = Field(
            None, description="consistency of logits under noise; null: with variant released only"
        )
        weight_max: float = Field(0.1, ge=0, description="lambda at the end of its ramp")
        backward_factor: float = Field(10.0, ge=0, description="U2L: weight relative to the others")
        scale: float = Field(20.0, gt=0, description="factor of the cosines before the softmax")
        noise_std: float = Field(0.1, ge=0, description="stability: noise on the teacher's input")
        noise_limit: float = Field(0.2, ge=0, description="stability: largest magnitude of this noise")

    needs_features = needs_levels = True
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup", "l2u" and "u2l", and "stability" where it is on."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.weight_max * sigmoid_rampup(step.fraction / RAMP_FRACTION, RAMP_STEPS)
        step.note("weight", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        maps = self.net.pyramid(images)
        logits = self.net.head(maps[0])
        coarser = self.net.coarse(maps[1:]) if cfg.deep_supervision else []
        with full_precision(images):
            own = Prediction.of(logits[:count])
            sup = 0.5 * self.supervised(own, labeled, step, coarser, background=True)
        terms = {"sup": sup}
        if cfg.stability if cfg.stability is not None else cfg.variant == "released":
            terms["stability"] = weight * self._stability(logits, images, step)
        l2u = u2l = torch.zeros_like(sup)
        if count and len(unlabeled.image):
            l2u, u2l = self._cycle(own, maps[LEVEL][:count], labeled, unlabeled.image)
        return terms | {"l2u": weight * l2u, "u2l": weight * cfg.backward_factor * u2l}

    def _stability(self, logits: Tensor, images: Tensor, step: Step) -> Tensor:
        """Average the squared difference between the logits and the teacher's for noisy patches."""
        cfg = self.config
        noisy = add_noise(images, step.generator, std=cfg.noise_std, limit=cfg.noise_limit)
        with torch.no_grad():
            target = self.teacher(noisy)
        with full_precision(images):
            return mean(mean_squared_error(widen(logits), widen(target)))

    def _cycle(
        self, own: Prediction, features: Tensor, labeled: Batch, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute L_L2U and L_U2L, from the student's labeled side and the teacher's view of `image`."""
        cfg = self.config
        with torch.no_grad():
            maps = self.teacher.pyramid(image)
            logits = self.teacher.head(maps[0])
        with full_precision(image):
            teacher, label = Prediction.of(logits), labeled.target.flatten(1)
            valid = None if labeled.valid is None else labeled.valid.flatten(1)
            probs, probs_u = own.probs.flatten(2), teacher.probs.flatten(2)
            if cfg.variant == "released":
                probs, features = probs.detach(), features.detach()
            factor = self.net.factor(LEVEL)
            features, features_u = (
                enlarge(widen(values), factor).flatten(2) for values in (features, maps[LEVEL])
            )
            members, members_u = (onehot(x, own.num_classes) for x in (label, teacher.label.flatten(1)))
            members = both(members, None if valid is None else valid.unsqueeze(1))
            prototypes = repeated(weighted_prototypes(features, members * probs), len(image))
            prototypes_u = repeated(weighted_prototypes(features_u, members_u * probs_u), len(label))

            forward = torch.softmax(cfg.scale * cosines(features_u, prototypes), dim=1)
            backward = torch.log_softmax(cfg.scale * cosines(features, prototypes_u), dim=1)
            if cfg.variant == "released":
                backward = torch.log_softmax(backward.exp(), dim=1)
            return mean(mean_squared_error(forward, probs_u)), cross_entropy(backward, label, valid)
