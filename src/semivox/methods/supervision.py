"""What methods can add to learning from labels: mixtures, coarser scales, the distance to the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from semivox.errors import UserError
from semivox.losses.distance import boundary_loss
from semivox.losses.mixing import cuboid_mask, paste
from semivox.losses.prediction import Prediction
from semivox.losses.soft_labels import SCALES, averaged, soft_cross_entropy_dice
from semivox.losses.supervised import cross_entropy_dice, mean, onehot
from semivox.methods.base import Batch, Method, Step, full_precision
from semivox.nets import NetFactory
from semivox.nets.network import Network, Segmenter

FIRST_SHARE = 0.01  # of the boundary loss's weight, at the start


class Mixing(BaseModel):
    """Options of mixing patches; not in the papers."""

    mix: Literal["none", "paste"] = Field(
        "none",
        description="ours: paste: exchange a cuboid between labeled and unlabeled patches; in a step without"
        " unlabeled ones, add mixtures of labeled ones",
    )
    mix_cuboid: float = Field(
        2 / 3, gt=0, lt=1, description="ours: side of the pasted cuboid / side of the patch"
    )

    def with_mixtures(self, labeled: Batch, step: Step) -> Batch:
        """Append mixtures of the labeled patches: each with a cuboid from the one before, label included.

        A single patch has none to mix with, and stays alone.
        """
        if self.mix == "none" or len(labeled.image) < 2:
            return labeled
        mask = cuboid_mask(labeled.image.shape[2:], self.mix_cuboid, step.generator)

        def extended(values: Tensor) -> Tensor:
            return torch.cat([values, paste(values, values.roll(1, dims=0), mask)])

        valid = None if labeled.valid is None else extended(labeled.valid)
        return Batch(extended(labeled.image), extended(labeled.target), valid=valid)


class BoundarySupervised(Method):
    """A method that can add the boundary loss to its supervised loss.

    Its weight grows from a hundredth of `boundary_weight` in proportion to the share of the run that is done,
    as published: there from 0.01 by 0.01 an epoch. Distances are in units of the smallest side of a voxel.
    """

    class Config(Method.Config):
        boundary_weight: float = Field(
            0.0,
            ge=0,
            description="ours: weight of the boundary loss (Kervadec et al., 2019) in the supervised loss, at"
            " the end of the run; it grows from a hundredth of it",
        )

    config: Config
    apart: tuple[float, ...] = (1.0, 1.0, 1.0)  # neighbouring voxels, in units of the smallest distance

    def build(self, net: NetFactory) -> None:
        """Keep the shape of a voxel, if it matters; create the networks."""
        if self.config.boundary_weight:
            self.apart = tuple(side / min(net.spacing_mm) for side in net.spacing_mm)
        super().build(net)

    def boundary(self, probs: Tensor, label: Tensor, valid: Tensor | None, step: Step) -> Tensor | float:
        """Compute the weighted boundary loss; 0 if it is off."""
        if not self.config.boundary_weight:
            return 0.0
        weight = self.config.boundary_weight * max(FIRST_SHARE, step.fraction)
        step.note("weight_boundary", weight)
        return weight * boundary_loss(probs, label, valid, self.apart)


class LabelSupervised(BoundarySupervised):
    """A method whose supervised loss is cross-entropy + Dice, and may count coarser scales as well."""

    class Config(BoundarySupervised.Config):
        deep_supervision: bool = Field(
            False,
            description="ours: add the supervised loss of up to two coarser scales, weighted 1, 1/2, 1/4,"
            " brought to sum 1",
        )

    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the networks, with heads on their coarser levels if these are supervised."""
        deep = self.config.deep_supervision
        super().build(replace(net, deep=True) if deep else net)
        for part in self.modules():
            if deep and isinstance(part, Network) and part.scales == 1:
                what = "deep_supervision needs logits of coarser scales, which a network does not have"
                found = type(getattr(part, "net", part)).__name__  # of MONAI: its own name
                do = "choose vnet, resnet34, unet3d, resunet, or monai:SegResNetDS and net.options.dsdepth=3"
                raise UserError(what, found, "networks with coarser scales", do)

    def scales(self, net: Network, images: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> logits (B, K, X, Y, Z), and those of coarser scales if these are supervised."""
        return net.deep(images) if self.config.deep_supervision else [net(images)]

    def feature_scales(
        self, nets: Sequence[Segmenter], images: Tensor
    ) -> list[tuple[Tensor, Tensor, list[Tensor]]]:
        """Return the features of each network, before its head's dropout, and the logits as in `scales`."""
        deep = self.config.deep_supervision
        maps = [net.pyramid(images) if deep else [net.features(images)] for net in nets]
        return [
            (finest, net.head(finest), net.coarse(coarser) if deep else [])
            for net, (finest, *coarser) in zip(nets, maps, strict=True)
        ]

    def supervised_loss(self, net: Network, labeled: Batch, step: Step) -> Tensor:
        """Pass labeled patches through one network and compute `supervised`; 0 without any."""
        if not len(labeled.image):
            return labeled.image.new_zeros((), requires_grad=True)
        finest, *coarser = self.scales(net, labeled.image)
        with full_precision(labeled.image):
            return self.supervised(Prediction.of(finest), labeled, step, coarser)

    def supervised(
        self,
        own: Prediction,
        labeled: Batch,
        step: Step,
        coarser: Sequence[Tensor] = (),
        *,
        background: bool = False,
    ) -> Tensor:
        """Compute cross-entropy + Dice on labeled patches, and what the options add.

        Args:
            own: prediction of the labeled patches.
            labeled: these patches.
            step: of the run.
            coarser: logits of coarser scales, of these and perhaps further patches behind them.
            background: whether the Dice counts class 0.
        """
        label, valid = labeled.target, labeled.valid
        loss = cross_entropy_dice(own.log_probs, own.probs, label, valid, background=background)
        if coarser:
            shares = onehot(label, own.num_classes).to(loss.dtype)
            for logits, factor in zip(coarser, SCALES[1:], strict=False):
                at = averaged(shares, labeled.weight, logits.shape[2:])
                loss = loss + factor * mean(soft_cross_entropy_dice(logits[: len(label)], *at))
            loss = loss / sum(SCALES[: 1 + len(coarser)])
        return loss + self.boundary(own.probs, label, valid, step)
