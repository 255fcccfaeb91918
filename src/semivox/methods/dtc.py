"""DTC: dual-task consistency."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.distance import level_set_consistency
from semivox.losses.schedules import sigmoid_rampup
from semivox.methods.base import Batch, Step, full_precision
from semivox.methods.heads import SignedDistanceMethod


class DTC(SignedDistanceMethod):
    """A network predicts classes and signed distance maps; the two must agree on every scan.

    A steep sigmoid turns the distance map S, negative inside, into a mask that is compared with the class
    probability p. With Z the distance map of the label,
    L = Dice(p, y) + 0.3 mean (S - Z)^2 + w(t) mean (sigmoid(-k S) - p)^2.
    The last term sees labeled and unlabeled patches and has gradient into both S and p, into S only within
    about 10 / k of its zero level. Inference takes p.

    Source: Luo et al., "Semi-supervised medical image segmentation through dual-task consistency", AAAI 2021,
    arXiv 2009.04448. The released code ignores its option for the weight of the consistency and uses 1; its
    test script loads a best checkpoint that its training script does not write. Here the last one counts.
    """

    class Config(SignedDistanceMethod.Config):
        weight: float = Field(1.0, ge=0, description="weight of the consistency after its ramp")
        ramp_fraction: float = Field(
            1.0, gt=0, le=1, description="share of the run that this ramp takes; published: 6000 of 6000"
        )
        steepness: float = Field(1500.0, gt=0, description="k: steepness of the sigmoid of the distance map")

    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_dice", "sup_sdf" and "consistency"."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.weight * sigmoid_rampup(step.fraction / cfg.ramp_fraction)
        step.note("weight_consistency", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        prediction, distance = self.outputs(images)
        with full_precision(images):
            terms = self.supervised(prediction[:count], distance[:count], labeled)
            terms["consistency"] = weight * level_set_consistency(prediction.probs, distance, cfg.steepness)
        return terms
