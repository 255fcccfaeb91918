"""Training on the labels alone: what every semi-supervised method has to beat."""

from __future__ import annotations

from torch import Tensor

from semivox.methods.base import Batch, PairMethod, SingleMethod, Step
from semivox.methods.supervision import LabelSupervised, Mixing


class Supervised(LabelSupervised, SingleMethod):
    """One network on 4 labeled patches a step, cross-entropy + Dice.

    Source: the lower bound of all published tables, e.g. Yu et al., MICCAI 2019.
    """

    class Config(Mixing, LabelSupervised.Config, SingleMethod.Config):
        pass

    batch = (4, 0)
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup"; unlabeled patches are ignored."""
        labeled = self.config.with_mixtures(labeled, step)
        return {"sup": self.supervised_loss(self.net, labeled, step)}


class SupervisedMatched(Supervised):
    """`Supervised` with the 2 labeled patches a step that semi-supervised methods see."""

    batch = (2, 0)


class SupervisedPair(LabelSupervised, PairMethod):
    """The two networks of `dual`, trained on labels only and averaged.

    A step takes the same 2 labeled patches as one of `dual` does, so that at equal iterations the unlabeled
    patches and the terms on them are the only difference; `train.batch_labeled` = 4 takes as many patches
    a step as `dual` has in all.
    """

    class Config(Mixing, LabelSupervised.Config, PairMethod.Config):
        pass

    batch = (2, 0)
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_a" and "sup_b"; unlabeled patches are ignored."""
        labeled = self.config.with_mixtures(labeled, step)
        nets = {"sup_a": self.net_a, "sup_b": self.net_b}
        return {name: self.supervised_loss(net, labeled, step) for name, net in nets.items()}
