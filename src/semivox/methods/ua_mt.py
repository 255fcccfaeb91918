"""UA-MT: a mean teacher that is followed only where it is certain."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import kl_divergence, mean_squared_error
from semivox.losses.prediction import Prediction, log_softmax
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import masked_mean, mean
from semivox.losses.uncertainty import add_noise, normalised_entropy, sampled_probabilities
from semivox.methods.base import Batch, Step, TeacherMethod, full_precision
from semivox.methods.supervision import LabelSupervised

RAMP_STEPS = 40  # published: a step each 150 of 6000 iterations


class UAMT(LabelSupervised, TeacherMethod):
    """The student follows the teacher where the entropy of the teacher's Monte-Carlo mean is low.

    L = (CE + Dice) / 2 + w(t) L_c. L_c is the mean squared difference between the student's softmax of the
    clean patches and the teacher's of noisy ones, over the voxels where the entropy U of the mean of 8 noisy
    passes of the teacher is below H(t) = (0.75 + 0.25 r(t)) log K. The target is a pass of its own. w(t) =
    0.1 r(t) in 40 steps; both ramps take the whole run. Only the student predicts.

    The published constants for two classes become log K for H, and a mean over K classes for L_c. The
    released code has two scripts, with consistency on unlabeled patches alone (its README's, and the default
    here) or on all (`consistency_on_labeled`); checked by reading both.

    Source: Yu et al., "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium
    Segmentation", MICCAI 2019, arXiv 1907.07034.
    """

    class Config(LabelSupervised.Config, TeacherMethod.Config):
        weight_max: float = Field(0.1, ge=0, description="weight of the consistency at the end of its ramp")
        passes: int = Field(8, ge=2, multiple_of=2, description="teacher's passes for its uncertainty, even")
        threshold_start: float = Field(
            0.75, ge=0, le=1, description="entropy below which the teacher is followed, as a share of log K"
        )
        threshold_end: float = Field(1.0, ge=0, le=1, description="the same at the end of the run")
        noise_std: float = Field(0.1, ge=0, description="noise on the teacher's input, standard deviation")
        noise_limit: float = Field(0.2, ge=0, description="largest magnitude of this noise")
        distance: Literal["mse", "kl"] = Field("mse", description="squared error, or KL(teacher || student)")
        consistency_on_labeled: bool = Field(False, description="consistency on labeled patches as well")

    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" and "consistency"."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.weight_max * sigmoid_rampup(step.fraction, RAMP_STEPS)
        step.note("weight", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        logits, *coarser = self.scales(self.net, images)
        with full_precision(images):
            student = Prediction.of(logits)
            own = student[:count]
            sup = 0.5 * self.supervised(own, labeled, step, coarser)
        if not cfg.consistency_on_labeled:
            student, images = student[count:], unlabeled.image
        consistency = self._consistency(student, images, step) if len(images) else torch.zeros_like(sup)
        return {"sup": sup, "consistency": weight * consistency}

    def _consistency(self, student: Prediction, images: Tensor, step: Step) -> Tensor:
        """Compute L_c = sum M d / sum M, M where the teacher is certain."""
        cfg = self.config
        noise = {"std": cfg.noise_std, "limit": cfg.noise_limit}
        threshold = cfg.threshold_start
        threshold += (cfg.threshold_end - cfg.threshold_start) * sigmoid_rampup(step.fraction)
        with torch.no_grad():
            logits = self.teacher(add_noise(images, step.generator, **noise))
            average = sampled_probabilities(self.teacher, images, step.generator, passes=cfg.passes, **noise)
        with full_precision(images):
            certain = normalised_entropy(average) < threshold
            teacher = log_softmax(logits)
            if cfg.distance == "mse":
                difference = mean_squared_error(student.probs, teacher.exp())
            else:
                difference = kl_divergence(teacher, student.log_probs) / student.num_classes
            step.note("threshold", threshold)
            step.note("certain_share", mean(certain))
            return masked_mean(difference, certain)
