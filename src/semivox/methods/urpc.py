"""URPC: predictions from four decoder levels agree, less where they are uncertain."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import mean_log_probs, rectified_consistency
from semivox.losses.prediction import log_softmax
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import cross_entropy_dice
from semivox.methods.base import Batch, SingleMethod, Step, full_precision
from semivox.nets import NetFactory
from semivox.nets.heads import PyramidHeads

RAMP_STEPS = 400  # published: a step each 150 of 60000 iterations


class URPC(SingleMethod):
    """One network predicts at four scales; each is pulled to their average where they do not differ much.

    L = L_s + w(t) L_u, each a mean over the scales, brought to full resolution. L_s: (CE + Dice) / 2 over all
    classes. L_u, on unlabeled patches, with D = KL(average || scale) per voxel and v = exp(-D):
    mean(v (average - scale)^2) / mean(v) + mean(D); nothing is detached. w(t) = 0.1 r(t) in 400 steps over
    the run. The finest scale alone predicts. No teacher, no noise; published with lr 0.1 and the poly
    schedule.

    Published on a 3D U-Net with instance normalisation (`net: unet3d`, 5,884,504 parameters with its heads);
    on a V-Net or ResNet the four decoder levels get such heads as well, each with dropout. The released code
    takes logarithms of softmax values, which become infinite for logits 104 apart (checked in float32); here
    the logarithm is taken inside the softmax.

    Source: Luo et al., "Efficient Semi-supervised Gross Target Volume of Nasopharyngeal Carcinoma
    Segmentation via Uncertainty Rectified Pyramid Consistency", MICCAI 2021, arXiv 2012.07042.
    """

    class Config(SingleMethod.Config):
        net: str = Field("unet3d", description="network")
        norm: Literal["batch", "instance", "group", "none"] | None = Field(
            None, description="its normalisation; null: instance for unet3d, as published, else net.norm"
        )
        weight_max: float = Field(0.1, ge=0, description="weight of L_u at the end of its ramp")
        kl: Literal["from_average", "to_average"] = Field(
            "from_average", description="D = KL(average || scale), as released, or KL(scale || average)"
        )

    needs_features = needs_levels = True
    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the network and the heads of its coarser levels."""
        name, norm = self.config.net, self.config.norm
        own = name == "unet3d"  # whose decoder drops channels at each level itself
        self.net = self.make(net, name, norm=norm or ("instance" if own else net.norm))
        self.heads = PyramidHeads(self.net, dropout=0.0 if own else net.dropout)

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" and "pyramid"."""
        count = len(labeled.image)
        weight = self.config.weight_max * sigmoid_rampup(step.fraction, RAMP_STEPS)
        step.note("weight", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        finest, *coarser = self.net.pyramid(images)
        logits = [self.net.head(finest), *self.heads(coarser)]
        with full_precision(images):
            scales = [log_softmax(values) for values in logits]
            own, others = [s[:count] for s in scales], [s[count:] for s in scales]
            average = mean_log_probs(others)
            sup = [
                cross_entropy_dice(s, s.exp(), labeled.target, labeled.valid, background=True) for s in own
            ]
            pyramid = [rectified_consistency(s, average, self.config.kl) for s in others]
            return {"sup": 0.5 * torch.stack(sup).mean(), "pyramid": weight * torch.stack(pyramid).mean()}
