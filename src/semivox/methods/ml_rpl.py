"""ML-RPL: mutual learning with reliable pseudo-labels."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.prediction import Prediction, widen
from semivox.losses.pseudo_labels import reliable_cross_entropy
from semivox.losses.schedules import sigmoid_rampup
from semivox.methods.base import Batch, PseudoLabel, Step, full_precision
from semivox.methods.heads import MultiDecoderMethod
from semivox.nets.blocks import UpKind


class MLRPL(MultiDecoderMethod):
    """Two decoders learn each other's labels, each only where the other one is the surer.

    With H the entropy, m_ij = [H_i > H_j], y_j the label of decoder j and w_j how well its softmax agrees
    with the cosines between its features and their class means,
    L = 0.5 sum_i Dice(p_i, y) + w(t) sum_{i != j} mean_{m_ij} w_j CE(z_i, y_j).

    Features are taken after the head's dropout, as in the released code, so half of their channels are 0 in
    training. With more than two classes the agreement is the mean over all of them.

    Source: Su et al., "Mutual learning with reliable pseudo label for semi-supervised medical image
    segmentation", Medical Image Analysis 94, 2024. The released code trains 15000 iterations at a constant
    learning rate (train.schedule = constant) and keeps the checkpoint with the best Dice on the test list.
    Its averaged prediction thresholds the mean of logits; `prediction = mean` averages softmax maps.
    """

    class Config(MultiDecoderMethod.Config):
        mutual_on_labeled: bool = Field(True, description="pseudo-labels also teach on labeled patches")

    others: ClassVar[tuple[UpKind, ...]] = ("nearest",)
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute a Dice term a decoder ("sup_KIND") and "mutual"."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.weight * sigmoid_rampup(step.fraction / cfg.ramp_fraction)
        step.note("weight_mutual", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        outputs = self.net(images)
        with full_precision(images):
            predictions = [Prediction.of(output.logits) for output in outputs]
            terms = self.supervised([own[:count] for own in predictions], labeled)
            taught = slice(0 if cfg.mutual_on_labeled else count, None)
            one, two = (own[taught] for own in predictions)
            features_one, features_two = (widen(output.features[taught]) for output in outputs)
            taught_one = reliable_cross_entropy(student=one, teacher=two, features=features_two)
            taught_two = reliable_cross_entropy(student=two, teacher=one, features=features_one)
            terms["mutual"] = weight * (taught_one + taught_two)
        return terms

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the label of each decoder, valid where it teaches the other one."""
        probs = self.predict_members(image)
        one, two = (torch.special.entr(own).sum(dim=1) for own in probs.values())
        return {
            kind: PseudoLabel.of(own)._replace(valid=surer)
            for (kind, own), surer in zip(probs.items(), (one < two, two < one), strict=True)
        }
