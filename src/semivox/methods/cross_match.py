"""CrossMatch: one network that must say the same of perturbed features and of changed images."""

from __future__ import annotations

from itertools import pairwise
from math import log
from typing import NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import dropout3d

from semivox.losses.mixing import halves, paste, volume_boxes
from semivox.losses.prediction import Prediction
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import dice_loss, mean
from semivox.methods.base import Batch, SingleMethod, Step, full_precision, without_dropout
from semivox.methods.strong_views import shade_and_blur
from semivox.methods.supervision import LabelSupervised

RAMP_FRACTION = 17000 / 14000  # of the run; published: over 17000 iterations, of which 14000 are taken


class Views(NamedTuple):
    """What one pass of the decoder predicts."""

    first: Prediction  # of patches whose features are never perturbed
    clean: Prediction  # of the others, no channels dropped
    weak: Prediction  # a quarter of the channels dropped
    strong: Prediction  # three quarters dropped
    coarser: list[Tensor]  # logits of coarser scales of the first; none without deep supervision


class Taught(NamedTuple):
    """A pseudo-label of unlabeled patches, without gradient; both (B, X, Y, Z)."""

    label: Tensor  # int64
    confident: Tensor  # boolean, where it is taught

    @classmethod
    def of(cls, prediction: Prediction, threshold: float) -> Self:
        """Take the most probable class, where it has at least this probability."""
        return cls(prediction.label, prediction.confidence >= threshold)

    def pasted(self, other: Self, box: Tensor) -> Self:
        """Take the other one inside the boxes."""
        return type(self)(paste(other.label, self.label, box), paste(other.confident, self.confident, box))

    def dice(self, student: Prediction) -> Tensor:
        """Compute the student's foreground Dice loss; 0 if nothing is taught."""
        return dice_loss(student.probs, self.label, mask=self.confident)


class CrossMatch(LabelSupervised, SingleMethod):
    """One network must agree with itself where channels of its features are dropped or the image is changed.

    The decoder reads an unlabeled patch's features three times: with no channels (c), a quarter (w) and three
    quarters (s) of them dropped. The patch also has two strong views (1, 2): other intensities and, in half
    of the cases, a cuboid from a partner, whose pseudo-label is pasted into the patch's (c', w', s'). With
    D(p <- t) the foreground Dice loss of p to the label of t, over the voxels where t is confident,

        L = (L_sup + L_ip + (1 - eta) L_tkd + eta L_dkd) / 2,  L_sup = (CE + Dice) / 2;
        L_ip = (D(c_1 <- c') + D(c_2 <- c')) / 4;
        L_tkd = (D(w <- c) + D(s <- c) + D(w_2 <- c') + D(s_2 <- c')) / 4;
        L_dkd = (D(w_2 <- w') + D(s_2 <- s')) / 2.

    There is no moving average. The head drops no channels in training. The first half of the unlabeled
    patches is taught; the others are the partners.

    Weights and constants are those of the released code (commit 59772e0). There a voxel is confident if its
    probability is at least (0.75 + 0.25 r(t)) log 2, which rises from 0.52 to 0.67: with two classes few
    voxels are left out. Differences from that code: the partners pass the network once, not twice, without
    the labeled patches beside them; the sides of a cuboid are shares of the patch's sides, not voxels. The
    partners pass in training mode. There they did so in evaluation mode until December 2025; the authors
    changed that, and trained longer, after a report of 86.1 instead of 91.3 (issue 8 there).

    Source: Zhao et al., "CrossMatch: Enhance Semi-Supervised Medical Image Segmentation with Perturbation
    Strategies and Knowledge Distillation", JBHI 2024, arXiv 2405.00354. The code trains with train.optimizer
    = adamw, train.lr = 0.001 and train.weight_decay = 0.0001, for 14000 iterations of a polynomial decay that
    would end after 17000; the last one counts.
    """

    batch = (2, 4)

    class Config(LabelSupervised.Config, SingleMethod.Config):
        drop_weak: float = Field(0.25, ge=0, lt=1, description="w: share of the channels that is dropped")
        drop_strong: float = Field(0.75, ge=0, lt=1, description="s: share of the channels that is dropped")
        image_weight: float = Field(0.5, ge=0, description="weight of the mean of both strong views, in L_ip")
        eta: float = Field(0.3, ge=0, le=1, description="weight of L_dkd; that of L_tkd is 1 - eta")
        threshold_start: float = Field(
            0.75 * log(2), ge=0, le=1, description="confidence from which a pseudo-label is taught"
        )
        threshold_end: float = Field(
            log(2), ge=0, le=1, description="the same at the end of its ramp, after 1.2 runs"
        )

    needs_features = needs_levels = True
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup", "ip", "tkd" and "dkd"."""
        taught = (len(unlabeled.image) + 1) // 2
        image, partner = halves(unlabeled.image, taught) if taught else (unlabeled.image, unlabeled.image)
        plain = self._views(torch.cat([labeled.image, image]), len(labeled.image))
        with full_precision(image):
            sup = 0.25 * self.supervised(plain.first, labeled, step, plain.coarser)
        if taught:
            return {"sup": sup, **self._consistency(plain, image, partner, step)}
        return {"sup": sup, **dict.fromkeys(("ip", "tkd", "dkd"), torch.zeros_like(sup))}

    def _consistency(self, plain: Views, image: Tensor, partner: Tensor, step: Step) -> dict[str, Tensor]:
        """Compute the terms on unlabeled patches, of which `plain` holds the weak views' predictions."""
        cfg = self.config
        change = (cfg.threshold_end - cfg.threshold_start) * sigmoid_rampup(step.fraction / RAMP_FRACTION)
        threshold = cfg.threshold_start + change
        draws = step.generator
        boxes = [volume_boxes(len(image), image.shape[2:], draws) for _ in range(2)]
        with full_precision(image):
            seen = [
                paste(shade_and_blur(partner, draws), shade_and_blur(image, draws), box.unsqueeze(1))
                for box in boxes
            ]
        with torch.no_grad():
            other = self._views(partner, 0)
        changed = self._views(torch.cat(seen), len(image))

        with full_precision(image):
            clean, weak, strong = (Taught.of(view, threshold) for view in plain[1:4])
            others = [Taught.of(view, threshold) for view in other[1:4]]
            clean_1 = clean.pasted(others[0], boxes[0])
            clean_2, weak_2, strong_2 = (
                label.pasted(one, boxes[1]) for label, one in zip((clean, weak, strong), others, strict=True)
            )
            ip = clean_1.dice(changed.first) + clean_2.dice(changed.clean)
            tkd = clean.dice(plain.weak) + clean.dice(plain.strong)
            tkd = tkd + clean_2.dice(changed.weak) + clean_2.dice(changed.strong)
            dkd = weak_2.dice(changed.weak) + strong_2.dice(changed.strong)
        step.note("threshold", threshold)
        step.note("confident_share", mean(plain.clean.confidence >= threshold))
        shares = {"ip": cfg.image_weight / 2, "tkd": (1 - cfg.eta) / 4, "dkd": cfg.eta / 2}
        terms = {"ip": ip, "tkd": tkd, "dkd": dkd}
        return {name: 0.5 * shares[name] * term for name, term in terms.items()}

    def _views(self, image: Tensor, count: int) -> Views:
        """Predict all patches, and those from `count` on again from perturbed features, as one batch."""
        drops = self.config.drop_weak, self.config.drop_strong
        levels = [
            torch.cat([level, *(dropout3d(level[count:], drop, training=True) for drop in drops)])
            for level in self.net.encode(image)
        ]
        deep, decoder = self.config.deep_supervision, self.net.decoder
        maps = decoder.pyramid(levels) if deep else [decoder(levels)]
        with without_dropout(self.net.head):
            logits = self.net.head(maps[0])
        with full_precision(image):
            prediction = Prediction.of(logits)
        total, rest = len(image), len(image) - count
        ends = (0, count, total, total + rest, total + 2 * rest)
        first, clean, weak, strong = (prediction[start:stop] for start, stop in pairwise(ends))
        coarser = self.net.coarse([level[:count] for level in maps[1:]])
        return Views(first, clean, weak, strong, coarser)
