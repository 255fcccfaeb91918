"""Bases of methods whose network has several decoders, or a second head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from semivox.losses.distance import distance_error, signed_distance
from semivox.losses.prediction import Prediction, most_probable, widen
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import cross_entropy, dice_loss
from semivox.methods.base import Batch, Method, PseudoLabel, SingleMethod, Step, full_precision
from semivox.nets import NetFactory
from semivox.nets.blocks import UpKind
from semivox.nets.heads import Decoded, MultiDecoder


class MultiDecoderMethod(Method):
    """One encoder and several decoders, which differ in how they up-sample; inference takes the first."""

    class Config(SingleMethod.Config):
        sup_weight: float = Field(0.5, ge=0, description="weight of each decoder's Dice loss")
        ce_weight: float = Field(
            0.0, ge=0, description="weight of cross-entropy beside each Dice loss; the papers have Dice alone"
        )
        weight: float = Field(1.0, ge=0, description="weight of the other term after its ramp")
        ramp_fraction: float = Field(
            0.4, gt=0, le=1, description="share of the run that this ramp takes; published: 6000 of 15000"
        )
        prediction: Literal["first", "mean"] = Field(
            "first", description="inference: the first decoder, as published, or the mean of all softmax maps"
        )

    others: ClassVar[tuple[UpKind, ...]]  # the first up-samples by transposed convolutions
    term: ClassVar[str]  # name of the term between the decoders
    needs_features = needs_levels = True
    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the network with its decoders."""
        self.net = MultiDecoder(self.make(net, self.config.net), self.others)

    @property
    def kinds(self) -> tuple[UpKind, ...]:
        """How each decoder up-samples, the first one's first."""
        return ("transposed", *self.others)

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute a Dice term a decoder ("sup_KIND") and w(t) times the term between the decoders."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.weight * sigmoid_rampup(step.fraction / cfg.ramp_fraction)
        step.note(f"weight_{self.term}", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        outputs = self.net(images)
        with full_precision(images):
            predictions = [Prediction.of(output.logits) for output in outputs]
            terms = self.supervised([own[:count] for own in predictions], labeled)
            return {**terms, self.term: weight * self.between(predictions, outputs, count)}

    def between(self, predictions: list[Prediction], outputs: list[Decoded], count: int) -> Tensor:
        """Compute the term between the decoders; the first `count` patches are labeled."""
        raise NotImplementedError

    def supervised(self, predictions: list[Prediction], labeled: Batch) -> dict[str, Tensor]:
        """Compute the foreground Dice loss, with plain denominator, of each decoder on labeled patches.

        Dice alone hardly teaches a class that is nowhere predicted; `ce_weight` adds cross-entropy.
        """
        cfg, label, valid = self.config, labeled.target, labeled.valid
        terms = {}
        for kind, own in zip(self.kinds, predictions, strict=True):
            loss = dice_loss(own.probs, label, mask=valid, squared=False, smooth=1e-8)
            if cfg.ce_weight:
                loss = loss + cfg.ce_weight * cross_entropy(own.log_probs, label, valid)
            terms[f"sup_{kind}"] = cfg.sup_weight * loss
        return terms

    def predict(self, image: Tensor) -> Tensor:
        """Compute the softmax of the first decoder, or the mean of all."""
        if self.config.prediction == "first":
            return torch.softmax(self.net.first(image).float(), dim=1)
        return super().predict(image)

    def predict_members(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the softmax of each decoder, by its kind of up-sampling."""
        outputs = zip(self.kinds, self.net(image), strict=True)
        return {kind: torch.softmax(widen(own.logits), dim=1) for kind, own in outputs}

    def combine(self, members: Mapping[str, Tensor]) -> Tensor:
        """Take the first decoder alone, or the mean of all."""
        return members[self.kinds[0]] if self.config.prediction == "first" else super().combine(members)


class SignedDistanceMethod(SingleMethod):
    """One network with a head for the classes and one for the signed distance map of each foreground class.

    Published for one foreground class, whose probability is the sigmoid of one logit. Here the head has a
    logit for each foreground class and the background's is 0: their softmax is that sigmoid for one class,
    and keeps several exclusive. Distance losses are means over the foreground classes.
    """

    class Config(SingleMethod.Config):
        sdf_weight: float = Field(0.3, ge=0, description="weight of the loss of the distance maps")
        absent: Literal["skip", "zero"] = Field(
            "skip",
            description="distance map of a class that is absent from a labeled patch: left out of the loss,"
            " or 0 everywhere, as in the published code",
        )

    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the network; the two heads are the halves of one convolution."""
        self.net = net(self.config.net, num_classes=2 * (net.num_classes - 1))

    def outputs(self, image: Tensor) -> tuple[Prediction, Tensor]:
        """Predict classes, and distance maps (B, K - 1, X, Y, Z) in -1..1, negative inside; in float32."""
        raw = self.net(image)
        with full_precision(image):
            distance, logits = widen(raw).chunk(2, dim=1)
            with_background = functional.pad(logits, (0, 0, 0, 0, 0, 0, 1, 0))
            return Prediction.of(with_background), torch.tanh(distance)

    def supervised(self, prediction: Prediction, distance: Tensor, labeled: Batch) -> dict[str, Tensor]:
        """Compute the foreground Dice loss and the squared error of the distance maps, on labeled patches."""
        truth = signed_distance(labeled.target, prediction.num_classes, labeled.valid)
        use = truth.present if self.config.absent == "skip" else torch.ones_like(truth.present)
        error = distance_error(distance, truth.map, use, truth.known)
        return {
            "sup_dice": dice_loss(prediction.probs, labeled.target, mask=labeled.valid),
            "sup_sdf": self.config.sdf_weight * error,
        }

    def predict(self, image: Tensor) -> Tensor:
        """Probabilities of the class head."""
        return self.outputs(image)[0].probs

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the labels of the class head ("class") and of the distance maps ("distance")."""
        prediction, distance = self.outputs(image)
        depth, index = most_probable(-distance)
        return {
            "class": PseudoLabel.of(prediction.probs),
            "distance": PseudoLabel(torch.where(depth > 0, index + 1, 0)),
        }
