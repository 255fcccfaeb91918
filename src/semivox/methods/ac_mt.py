"""AC-MT: a mean teacher that is followed only where the prediction is ambiguous."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import mean_squared_error
from semivox.losses.prediction import Prediction, widen
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import masked_mean, mean
from semivox.losses.uncertainty import add_noise, normalised_entropy, sampled_probabilities
from semivox.methods.base import Batch, Step, TeacherMethod, full_precision
from semivox.methods.supervision import LabelSupervised

RAMP_FRACTION, RAMP_STEPS = 6000 / 8000, 40  # published: a step each 150 of 8000 iterations
THRESHOLD_CHANGE = {  # of the threshold over the run, by variant and selector
    ("paper", "entropy"): -0.15,
    ("paper", "model_uncertainty"): -0.15,
    ("released", "entropy"): 0.20,
    ("released", "model_uncertainty"): 0.15,
}


class ACMT(LabelSupervised, TeacherMethod):
    """The student follows the teacher where the entropy is high: ambiguous voxels teach most.

    L = (CE + Dice) / 2 + w(t) L_c, with Dice over all classes. L_c is the mean squared difference between the
    student's softmax of the clean patches and the teacher's of noisy ones, over the voxels whose entropy,
    divided by log K, is at least tau(t): the entropy of the student's own prediction (`entropy`), or of the
    mean of 8 noisy passes of the teacher (`model_uncertainty`). w(t) = 0.1 r(t) in 40 steps over the first
    three quarters of the run. Only the student predicts.

    `variant: paper` lets tau fall from 0.75 to 0.60, a form that stands in a comment of the authors'
    left-atrium code; `released` lets it rise, to 0.95 (entropy) or 0.90 (model uncertainty), as that code
    does. Checked by reading it: it also takes the model uncertainty from the student in training mode, so
    that noisy patches enter the statistics of the network that predicts, and sums L_c over the classes there;
    here the teacher is asked, and L_c is the mean. Its selectors by prototypes and by confident learning are
    not offered.

    Source: Xu et al., "Ambiguity-selective consistency regularization for mean-teacher semi-supervised
    medical image segmentation", Medical Image Analysis 88, 2023, doi 10.1016/j.media.2023.102880.
    """

    class Config(LabelSupervised.Config, TeacherMethod.Config):
        variant: Literal["paper", "released"] = Field(
            "paper", description="threshold falls over the run (paper) or rises (released code, left atrium)"
        )
        selector: Literal["entropy", "model_uncertainty"] = Field(
            "entropy", description="what makes a voxel ambiguous: the student's entropy, or the teacher's"
        )
        weight_max: float = Field(0.1, ge=0, description="weight of the consistency at the end of its ramp")
        threshold_start: float = Field(
            0.75, ge=0, le=1, description="entropy from which a voxel is ambiguous, as a share of log K"
        )
        passes: int = Field(8, ge=2, multiple_of=2, description="model_uncertainty: teacher's passes, even")
        noise_std: float = Field(0.1, ge=0, description="noise on the teacher's input, standard deviation")
        noise_limit: float = Field(0.2, ge=0, description="largest magnitude of this noise")

    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" and "consistency"."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.weight_max * sigmoid_rampup(step.fraction / RAMP_FRACTION, RAMP_STEPS)
        step.note("weight", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        logits, *coarser = self.scales(self.net, images)
        with full_precision(images):
            student = Prediction.of(logits)
            own, student = student[:count], student[count:]
            sup = 0.5 * self.supervised(own, labeled, step, coarser, background=True)
        if not len(unlabeled.image):
            return {"sup": sup, "consistency": torch.zeros_like(sup)}
        return {"sup": sup, "consistency": weight * self._consistency(student, unlabeled.image, step)}

    def _consistency(self, student: Prediction, images: Tensor, step: Step) -> Tensor:
        """Compute L_c, the mean difference over the ambiguous voxels."""
        cfg = self.config
        noise = {"std": cfg.noise_std, "limit": cfg.noise_limit}
        change = THRESHOLD_CHANGE[cfg.variant, cfg.selector]
        threshold = cfg.threshold_start + change * sigmoid_rampup(step.fraction)
        judged = student.probs
        with torch.no_grad():
            logits = self.teacher(add_noise(images, step.generator, **noise))
            if cfg.selector == "model_uncertainty":
                judged = sampled_probabilities(
                    self.teacher, images, step.generator, passes=cfg.passes, **noise
                )
        with full_precision(images):
            ambiguous = normalised_entropy(judged) >= threshold
            difference = mean_squared_error(student.probs, torch.softmax(widen(logits), dim=1))
            step.note("threshold", threshold)
            step.note("ambiguous_share", mean(ambiguous))
            return masked_mean(difference, ambiguous)
