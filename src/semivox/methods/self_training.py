"""The default method: labels and mixtures of whole scans first, then pseudo-labels of the others as well."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.mixing import random_cuboid_mask
from semivox.losses.soft_labels import deep_loss, sharpened
from semivox.losses.supervised import onehot
from semivox.methods.base import Batch, SingleMethod, Step, full_precision
from semivox.methods.supervision import BoundarySupervised

_MOST_ON_LABELS = 0.8  # of a run that takes pseudo-labels


class SelfTraining(BoundarySupervised, SingleMethod):
    """One network learns from the labels; then its averaged weights label all scans, and it learns from both.

    In the first stage a step takes labeled scans only. At its end the moving average of the weights predicts
    every unlabeled scan as a whole; in the second stage the network starts from these averaged weights and
    takes labeled and pseudo-labeled scans. With `rounds` above 1 the pseudo-labels are made anew within the
    second stage. In both stages most batches are mixtures: each scan has a cuboid of the next one pasted in.

    Source: pseudo-labels, Lee, ICML workshop 2013; a student on noisier data, Xie et al., arXiv 1911.04252;
    pasted cuboids, Bai et al., arXiv 2305.00673. The combination is ours.
    """

    class Config(BoundarySupervised.Config, SingleMethod.Config):
        net: str = Field("resunet", description="network")
        rounds: int = Field(1, ge=0, le=10, description="times that pseudo-labels are made; 0: labels only")
        labels_share: float = Field(
            0.65, gt=0, lt=1, description="share of the iterations on labels alone, before the first round"
        )
        mix_probability: float = Field(0.7, ge=0, le=1, description="share of batches that are mixed")
        cuboid: tuple[float, float] = Field(
            (0.4, 0.75), description="smallest and largest side of the pasted cuboid / side of the patch"
        )
        labels_iterations: int = Field(
            2000,
            ge=0,
            description="least iterations on labels alone; where less than a fifth is left, all of them",
        )
        pseudo_weight: float = Field(0.7, ge=0, description="weight of pseudo-labeled voxels")
        uncertain_weight: float = Field(
            0.5, ge=0, le=1, description="factor where no class has a pseudo-probability above 0.75"
        )
        temperature: float = Field(0.5, gt=0, description="sharpens pseudo-labels; 1: as predicted")

    batch = (2, 2)
    soft_labels = True
    staged = True
    without_unlabeled = "labels_only"
    config: Config

    def stages(self, iterations: int) -> tuple[float, ...]:
        """Return the shares of the iterations: labels alone, then one share a round of pseudo-labels.

        A short run has the first stage only: pseudo-labels of a network that still improves hold it back.
        """
        rounds, least = self.config.rounds, self.config.labels_iterations / iterations
        if not rounds or least > _MOST_ON_LABELS:
            return (1.0,)
        first = max(self.config.labels_share, least)
        return (first, *((1 - first) / rounds,) * rounds)

    def teach(self, probs: Tensor) -> Tensor:
        """Turn the averaged network's probabilities (B, K, X, Y, Z) into soft pseudo-labels."""
        return sharpened(probs, self.config.temperature)

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" of the labeled and "pseudo" of the pseudo-labeled scans, mixed or not."""
        count, images, weight = len(labeled.image), labeled.image, labeled.weight
        shares = labeled.soft
        if shares is None:
            shares = onehot(labeled.target, self.net.num_classes).float()
        if unlabeled.soft is not None:
            images = torch.cat([images, unlabeled.image])
            shares = torch.cat([shares, unlabeled.soft])
            weight = torch.cat([weight, self._pseudo_weight(unlabeled.soft)])
        if not len(images):
            nothing = images.new_zeros((), requires_grad=True)
            return {"sup": nothing, "pseudo": nothing}
        images, shares, weight = self._mixed((images, shares, weight), step)
        scales = self.net.deep(images)
        with full_precision(images):
            each = deep_loss(scales, shares, weight) / len(images)
            terms = {"sup": each[:count].sum(), "pseudo": each[count:].sum()}
            if self.config.boundary_weight:
                probs, label = torch.softmax(scales[0][:count].float(), dim=1), shares[:count].argmax(dim=1)
                terms["sup"] = terms["sup"] + self.boundary(probs, label, weight[:count] > 0, step)
        return terms

    def _pseudo_weight(self, shares: Tensor) -> Tensor:
        """Weights (B, X, Y, Z): less where the pseudo-label is uncertain."""
        cfg = self.config
        certain = shares.amax(dim=1) > 0.75
        return cfg.pseudo_weight * torch.where(certain, 1.0, cfg.uncertain_weight)

    def _mixed(self, parts: tuple[Tensor, Tensor, Tensor], step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Paste the same cuboid of the next sample into each: images, shares and weights alike."""
        alone = torch.rand((), generator=step.generator, device=step.generator.device)
        mask = random_cuboid_mask(parts[0].shape[2:], self.config.cuboid, step.generator)
        mask = mask | (alone >= self.config.mix_probability)
        images, shares, weight = (torch.where(mask, part, part.roll(1, dims=0)) for part in parts)
        return images, shares, weight


class LabelsOnly(SelfTraining):
    """`self_training` without its pseudo-labels: the control with the same network, mixing and averaging."""

    class Config(SelfTraining.Config):
        rounds: int = Field(0, ge=0, le=0, description="none: the labels alone")

    batch = (2, 0)
    config: Config
