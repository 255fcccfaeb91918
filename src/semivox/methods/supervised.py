"""Training on the labels alone: what every semi-supervised method has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.supervised import cross_entropy_dice
from semivox.methods.base import Batch, PairMethod, SingleMethod, Step, full_precision, with_mixtures
from semivox.nets.blocks import Segmenter


class Mixing(BaseModel):
    """Options of the labels-only methods."""

    mix: Literal["none", "paste"] = Field(
        "none",
        description="paste: a step also takes mixtures of its labeled patches, as methods that mix do",
    )
    mix_cuboid: float = Field(2 / 3, gt=0, lt=1, description="side of the pasted cuboid / side of the patch")


def prepared(labeled: Batch, config: Mixing, step: Step) -> Batch:
    """The labeled patches of a step, with mixtures of them if the options ask for it."""
    return labeled if config.mix == "none" else with_mixtures(labeled, config.mix_cuboid, step)


def supervised_loss(net: Segmenter, labeled: Batch) -> Tensor:
    """Cross-entropy + Dice of one network on the labeled patches; 0 without any."""
    if not len(labeled.image):
        return labeled.image.new_zeros((), requires_grad=True)
    logits = net(labeled.image)
    with full_precision(labeled.image):
        prediction = Prediction.of(logits)
        return cross_entropy_dice(prediction.log_probs, prediction.probs, labeled.target, labeled.counted)


class Supervised(SingleMethod):
    """One network on 4 labeled patches a step, cross-entropy + Dice.

    Source: the lower bound of all published tables, e.g. Yu et al., MICCAI 2019.
    """

    class Config(SingleMethod.Config, Mixing):
        pass

    batch: ClassVar[tuple[int, int]] = (4, 0)
    partial_labels: ClassVar[bool] = True
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup"; unlabeled patches are ignored."""
        return {"sup": supervised_loss(self.net, prepared(labeled, self.config, step))}


class SupervisedMatched(Supervised):
    """`Supervised` with the 2 labeled patches a step that semi-supervised methods see."""

    batch: ClassVar[tuple[int, int]] = (2, 0)


class SupervisedPair(PairMethod):
    """The two networks of `dual`, trained on labels only and averaged.

    A step takes the same 2 labeled patches as one of `dual` does, so that at equal iterations the unlabeled
    patches and the terms on them are the only difference; `train.batch_labeled` = 4 gives it as many patches
    a step as `dual` has in all.
    """

    class Config(PairMethod.Config, Mixing):
        pass

    batch: ClassVar[tuple[int, int]] = (2, 0)
    partial_labels: ClassVar[bool] = True
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_a" and "sup_b"; unlabeled patches are ignored."""
        labeled = prepared(labeled, self.config, step)
        return {
            "sup_a": supervised_loss(self.net_a, labeled),
            "sup_b": supervised_loss(self.net_b, labeled),
        }
