"""SASSNet: signed distance maps that a discriminator cannot tell apart."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.prediction import widen
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import cross_entropy
from semivox.methods.base import Batch, Step, fixed, full_precision
from semivox.methods.heads import SignedDistanceMethod
from semivox.nets import NetFactory
from semivox.nets.heads import Discriminator

LABELED = 1  # the discriminator's second class


class SASSNet(SignedDistanceMethod):
    """A discriminator guesses from the predicted distance map if a scan is labeled; the network fools it.

    So the shapes predicted for unlabeled scans become like those for labeled ones. With S the predicted and Z
    the label's distance map, negative inside, and D the discriminator of S and image x,
    L = Dice(p, y) + 0.3 mean (S - Z)^2 + w(t) CE(D(S, x), labeled), the last term on unlabeled patches.
    After each step D learns CE(D(S, x), labeled or not) on the whole batch; "real" are predictions on labeled
    scans, it never sees Z. As published, D judges maps made in training mode with its own dropout off, but
    learns from maps made in evaluation mode. Inference takes p.

    D's width follows the network's (64 for 16) and its average is over any patch; with several foreground
    classes it sees all their maps.

    Source: Li et al., "Shape-aware semi-supervised 3D semantic segmentation for medical images", MICCAI 2020,
    arXiv 2007.10732; weights as in the released code.
    """

    class Config(SignedDistanceMethod.Config):
        weight: float = Field(
            0.01, ge=0, description="adversarial weight after its ramp; 0.015 with 8 labeled scans of 80"
        )
        ramp_fraction: float = Field(
            1.0, gt=0, le=1, description="share of the run that this ramp takes; published: 6000 of 6000"
        )
        critic_lr: float = Field(1e-4, gt=0, description="learning rate of the discriminator (Adam)")
        critic_betas: tuple[float, float] = Field((0.9, 0.99), description="Adam's decay of the two averages")

    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the network and the discriminator."""
        super().build(net)
        self.discriminator = Discriminator(
            map_channels=net.num_classes - 1, image_channels=net.in_channels, width=4 * net.width
        )

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_dice", "sup_sdf" and "adversarial"."""
        cfg, count = self.config, len(labeled.image)
        weight = cfg.weight * sigmoid_rampup(step.fraction / cfg.ramp_fraction)
        step.note("weight_adversarial", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        prediction, distance = self.outputs(images)
        with fixed(self.discriminator):
            verdict = self.discriminator(distance[count:], unlabeled.image)
        with full_precision(images):
            terms = self.supervised(prediction[:count], distance[:count], labeled)
            wanted = torch.full((len(verdict),), LABELED, device=verdict.device)
            terms["adversarial"] = weight * _cross_entropy(verdict, wanted)
        return terms

    def critic_parameters(self) -> list[dict[str, Any]]:
        """List the discriminator's parameters."""
        cfg, parameters = self.config, list(self.discriminator.parameters())
        return [{"params": parameters, "lr": cfg.critic_lr, "betas": cfg.critic_betas}]

    def critic_losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "discriminator": is the scan behind this map labeled?"""
        images = torch.cat([labeled.image, unlabeled.image])
        truth = (torch.arange(len(images), device=images.device) < len(labeled.image)).long()
        with fixed(self.net):
            _, distance = self.outputs(images)
        verdict = self.discriminator(distance, images)
        with full_precision(images):
            return {"discriminator": _cross_entropy(verdict, truth)}


def _cross_entropy(verdict: Tensor, truth: Tensor) -> Tensor:
    return cross_entropy(torch.log_softmax(widen(verdict), dim=1), truth)
