"""Training on the labels alone: what every semi-supervised method has to beat."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.supervised import cross_entropy_dice
from semivox.methods.base import Batch, PairMethod, SingleMethod, Step, full_precision
from semivox.methods.supervision import LabelSupervised, Mixing
from semivox.nets.network import Network


def supervised_loss(net: Network, labeled: Batch) -> Tensor:
    """Compute cross-entropy + Dice of one network on the labeled patches; 0 without any."""
    if not len(labeled.image):
        return labeled.image.new_zeros((), requires_grad=True)
    logits = net(labeled.image)
    with full_precision(labeled.image):
        prediction = Prediction.of(logits)
        return cross_entropy_dice(prediction.log_probs, prediction.probs, labeled.target, labeled.valid)


class LabelsAlone(LabelSupervised):
    """A method whose networks learn from labels alone."""

    class Config(Mixing, LabelSupervised.Config):
        pass

    config: Config

    def loss_of(self, net: Network, labeled: Batch, step: Step) -> Tensor:
        """Compute the supervised loss of one network; 0 without labeled patches."""
        if not len(labeled.image):
            return labeled.image.new_zeros((), requires_grad=True)
        finest, *coarser = self.scales(net, labeled.image)
        with full_precision(labeled.image):
            return self.supervised(Prediction.of(finest), labeled, step, coarser)


class Supervised(LabelsAlone, SingleMethod):
    """One network on 4 labeled patches a step, cross-entropy + Dice.

    Source: the lower bound of all published tables, e.g. Yu et al., MICCAI 2019.
    """

    class Config(LabelsAlone.Config, SingleMethod.Config):
        pass

    batch: ClassVar[tuple[int, int]] = (4, 0)
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup"; unlabeled patches are ignored."""
        return {"sup": self.loss_of(self.net, self.config.with_mixtures(labeled, step), step)}


class SupervisedMatched(Supervised):
    """`Supervised` with the 2 labeled patches a step that semi-supervised methods see."""

    batch: ClassVar[tuple[int, int]] = (2, 0)


class SupervisedPair(LabelsAlone, PairMethod):
    """The two networks of `dual`, trained on labels only and averaged.

    A step takes the same 2 labeled patches as one of `dual` does, so that at equal iterations the unlabeled
    patches and the terms on them are the only difference; `train.batch_labeled` = 4 takes as many patches
    a step as `dual` has in all.
    """

    class Config(LabelsAlone.Config, PairMethod.Config):
        pass

    batch: ClassVar[tuple[int, int]] = (2, 0)
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_a" and "sup_b"; unlabeled patches are ignored."""
        labeled = self.config.with_mixtures(labeled, step)
        nets = {"sup_a": self.net_a, "sup_b": self.net_b}
        return {name: self.loss_of(net, labeled, step) for name, net in nets.items()}
