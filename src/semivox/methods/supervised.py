"""Training on the labels alone: what every semi-supervised method has to beat."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.supervised import cross_entropy_dice
from semivox.methods.base import Batch, PairMethod, SingleMethod, Step, full_precision
from semivox.methods.teaching_pair import Mixing
from semivox.nets.network import Segmenter


def supervised_loss(net: Segmenter, labeled: Batch) -> Tensor:
    """Compute cross-entropy + Dice of one network on the labeled patches; 0 without any."""
    if not len(labeled.image):
        return labeled.image.new_zeros((), requires_grad=True)
    logits = net(labeled.image)
    with full_precision(labeled.image):
        prediction = Prediction.of(logits)
        return cross_entropy_dice(prediction.log_probs, prediction.probs, labeled.target, labeled.valid)


class Supervised(SingleMethod):
    """One network on 4 labeled patches a step, cross-entropy + Dice.

    Source: the lower bound of all published tables, e.g. Yu et al., MICCAI 2019.
    """

    class Config(Mixing, SingleMethod.Config):
        pass

    batch: ClassVar[tuple[int, int]] = (4, 0)
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup"; unlabeled patches are ignored."""
        return {"sup": supervised_loss(self.net, self.config.with_mixtures(labeled, step))}


class SupervisedMatched(Supervised):
    """`Supervised` with the 2 labeled patches a step that semi-supervised methods see."""

    batch: ClassVar[tuple[int, int]] = (2, 0)


class SupervisedPair(PairMethod):
    """The two networks of `dual`, trained on labels only and averaged.

    A step takes the same 2 labeled patches as one of `dual` does, so that at equal iterations the unlabeled
    patches and the terms on them are the only difference; `train.batch_labeled` = 4 takes as many patches
    a step as `dual` has in all.
    """

    class Config(Mixing, PairMethod.Config):
        pass

    batch: ClassVar[tuple[int, int]] = (2, 0)
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_a" and "sup_b"; unlabeled patches are ignored."""
        labeled = self.config.with_mixtures(labeled, step)
        return {"sup_a": supervised_loss(self.net_a, labeled), "sup_b": supervised_loss(self.net_b, labeled)}
