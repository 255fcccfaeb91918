"""ML-RPL: mutual learning with reliable pseudo-labels."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.prediction import Prediction, widen
from semivox.losses.pseudo_labels import reliable_cross_entropy
from semivox.methods.base import PseudoLabel
from semivox.methods.heads import MultiDecoderMethod
from semivox.nets.heads import Decoded


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

    others = ("nearest",)
    term = "mutual"
    config: Config

    def between(self, predictions: list[Prediction], outputs: list[Decoded], count: int) -> Tensor:
        """Teach each decoder the other one's label, where that one is surer."""
        taught = slice(0 if self.config.mutual_on_labeled else count, None)
        one, two = (own[taught] for own in predictions)
        features_one, features_two = (widen(output.features[taught]) for output in outputs)
        taught_one = reliable_cross_entropy(student=one, teacher=two, features=features_two)
        return taught_one + reliable_cross_entropy(student=two, teacher=one, features=features_one)

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the label of each decoder, valid where it teaches the other one."""
        probs = self.predict_members(image)
        one, two = (torch.special.entr(own).sum(dim=1) for own in probs.values())
        return {
            kind: PseudoLabel.of(own)._replace(valid=surer)
            for (kind, own), surer in zip(probs.items(), (one < two, two < one), strict=True)
        }
