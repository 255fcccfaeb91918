"""Mutual correction of two different networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import pair_distance, sharpen
from semivox.losses.prediction import Prediction
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import both, dice_loss, masked_mean, mean
from semivox.methods.base import Batch, PairMethod, Step, full_precision
from semivox.methods.supervision import LabelSupervised


class ReviewedPair(LabelSupervised, PairMethod):
    """A pair that learns from labels, is pulled to them where both differ, and knows the better one."""

    class Config(LabelSupervised.Config, PairMethod.Config):
        pass

    config: Config

    def reviewed(
        self,
        own: tuple[Prediction, Prediction],
        coarser: Sequence[Sequence[Tensor]],
        labeled: Batch,
        differ: Tensor,
        weight: float,
        step: Step,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute CE + Dice of both ("sup_a", "sup_b"), and "cdr": their squared error where they `differ`.

        `own` are predictions of the labeled patches, `coarser` as in `LabelSupervised.supervised`. Returns
        the terms, and whether the Dice loss of A is not above that of B.
        """
        label, valid = labeled.target, labeled.valid
        differ = both(differ, valid)
        step.note("cdr_share", mean(differ))
        sup_a, sup_b = (
            self.supervised(one, labeled, step, others) for one, others in zip(own, coarser, strict=True)
        )
        cdr = weight * masked_mean(pair_distance(*own, "mse", label), differ)
        dice_a, dice_b = (dice_loss(one.probs.detach(), label, mask=valid) for one in own)
        return {"sup_a": sup_a, "sup_b": sup_b, "cdr": cdr}, dice_a <= dice_b


class MCF(ReviewedPair):
    """Two different networks review where they disagree; the better one of the moment teaches the other.

    Contrastive difference review (CDR), on labeled voxels D with two different predicted classes:

        M_k = mean over D of the squared error of p_k to the label,  L_sup = sum_k CE + Dice + 0.5 M_k

    Dynamic competitive pseudo-labels (DCPL), on unlabeled patches: the network w with the lower Dice loss on
    this step's labeled patches teaches the other one, l, by s = sharpen(p_w, T) without gradient:

        L = L_sup + lambda(t) mean((p_l - s)^2),  lambda(t) = 0.1 exp(-5 (1 - t/t_max)^2)

    Source: Wang et al., "MCF: Mutual Correction Framework for Semi-Supervised Medical Image Segmentation",
    CVPR 2023, pp. 15651-15660. Published for one foreground class; with several, Dice is averaged and the
    squared error summed over them. As in the published code both networks see the same patches, and at equal
    Dice losses the first one (there the ResNet) teaches. The published figures are means over several folds.
    """

    class Config(ReviewedPair.Config):
        cdr_weight: float = Field(0.5, ge=0, description="CDR: weight")
        temperature: float = Field(0.1, gt=0, description="DCPL: of the teaching distribution; < 1 sharpens")
        lambda_max: float = Field(0.1, ge=0, description="DCPL: weight at the end of its ramp over the run")

    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_a", "sup_b", "cdr" on labeled and "dcpl" on unlabeled patches."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.lambda_max * sigmoid_rampup(step.fraction)
        step.note("weight_dcpl", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        (logits_a, *coarser_a), (logits_b, *coarser_b) = (
            self.scales(net, images) for net in (self.net_a, self.net_b)
        )
        with full_precision(images):
            a, b = Prediction.of(logits_a), Prediction.of(logits_b)
            differ = a.label[:count] != b.label[:count]
            terms, a_teaches = self.reviewed(
                (a[:count], b[:count]), (coarser_a, coarser_b), labeled, differ, cfg.cdr_weight, step
            )
            step.note("a_teaches", a_teaches)
            terms["dcpl"] = weight * self._dcpl(a[count:], b[count:], a_teaches)
        return terms

    def _dcpl(self, a: Prediction, b: Prediction, a_teaches: Tensor) -> Tensor:
        """Average (p_l - sharpen(p_w))^2 over classes and voxels; the teaching network's gradient is 0."""
        teacher = torch.where(a_teaches, a.log_probs, b.log_probs).detach()
        student = torch.where(a_teaches, b.probs, a.probs)
        return mean((student - sharpen(teacher, self.config.temperature)).square())
