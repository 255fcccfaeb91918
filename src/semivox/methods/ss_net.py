"""SS-Net: smoothness under adversarial perturbation, and features drawn to a memory of their class."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm

from semivox.losses.prediction import Prediction, widen
from semivox.losses.prototypes import Rows, best_rows, draw_rows, take_rows, weighted_cosine_distance
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import cross_entropy, dice_loss, mean
from semivox.methods.base import Batch, SingleMethod, Step, fixed, full_precision, switched_off
from semivox.nets import NetFactory


class SSNet(SingleMethod):
    """One network, smooth where its input is perturbed adversarially, with compact features of each class.

    L_vat, on all patches: 1 - mean over voxels of sum_c q_c p_c, with q the prediction and p that on the
    image moved by a distance of 10 (over the whole patch) in the direction that lowers q.p most.

    Contrast: voxel features pass a projection g and a prediction h. A memory of each class holds g of up to
    32 correctly predicted labeled voxels of the last step that had any. With f_i the features h(g) of class c
    (true or predicted), mu_j its memory, and a_i, b_j the learned weights of two selectors, of mean 1:

        L_con = mean over classes of mean_ij a_i b_j (1 - cos(f_i, mu_j))
        L = Dice + w(t) (L_vat + 0.1 (L_con,labeled + L_con,unlabeled)),  w: sigmoid, 40 % of the run

    Source: Wu et al., "Exploring Smoothness and Class-Separation for Semi-supervised Medical Image
    Segmentation", MICCAI 2022, arXiv 2203.01324. Deviations: `rows` voxels a class and patch are drawn rather
    than all, so that normalisation in g and h weighs classes alike; features are taken before the head's
    dropout. Several classes and channels are a generalisation.

    In the released code only foreground has a memory, its weights b_j come out as 1 (a sum over the wrong
    axis), and the memory keeps the voxels with the lowest scores. Checked by reading it, the weights by
    computing them. `variant: released` does the same.
    """

    class Config(SingleMethod.Config):
        variant: Literal["paper", "released"] = Field(
            "paper", description="released: memory of foreground only, of lowest scores, without weights"
        )
        ce_weight: float = Field(
            0.0, ge=0, description="weight of cross-entropy beside Dice; the paper has Dice alone"
        )
        rows: int = Field(4096, ge=2, description="contrast: voxels drawn of each class, times patches")
        memory_size: int = Field(32, ge=2, description="contrast: features remembered of each class")
        dimension: int = Field(32, ge=1, description="contrast: channels after projection and prediction")
        contrast_weight: float = Field(0.1, ge=0, description="contrast: weight, before the ramp")
        vat_weight: float = Field(1.0, ge=0, description="adversarial smoothness: weight, before the ramp")
        epsilon: float = Field(10.0, gt=0, description="adversarial: length of the perturbation of a patch")
        xi: float = Field(10.0, gt=0, description="adversarial: length at which its direction is found")
        power_steps: int = Field(1, ge=0, description="adversarial: refinements of the random direction")
        ramp_fraction: float = Field(0.4, gt=0, le=1, description="share of the run that the ramp w takes")

    needs_features = True
    config: Config

    def build(self, net: NetFactory) -> None:
        """Create the network, the heads that only training needs, and an empty memory."""
        super().build(net)
        classes, size = self.net.num_classes, self.config.dimension
        self.projection = _head(self.net.width, size, size, nn.ReLU())
        self.prediction = _head(size, size, size, nn.ReLU())
        self.selectors, self.memory_selectors = (
            nn.ModuleList(_head(size, size, 1, nn.LeakyReLU(0.2)) for _ in range(classes)) for _ in range(2)
        )
        self.register_buffer("memory", torch.zeros(classes, self.config.memory_size, size))
        self.register_buffer("filled", torch.zeros(classes, self.config.memory_size, dtype=torch.bool))
        self.memory: Tensor
        self.filled: Tensor

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup" on labeled, "contrast" on each stream and "vat" on all patches."""
        cfg, count = self.config, len(labeled.image)
        weight = sigmoid_rampup(step.fraction / cfg.ramp_fraction)
        step.note("weight_unsup", weight)
        images = torch.cat([labeled.image, unlabeled.image])
        features = self.net.features(images)
        logits = self.net.head(features)
        with full_precision(images):
            prediction = Prediction.of(logits)
            own, other, label = prediction[:count], prediction[count:], labeled.target
            entropy = cross_entropy(own.log_probs, label, labeled.valid)
            step.note("cross_entropy", entropy)
            sup = dice_loss(own.probs, label, mask=labeled.valid, squared=False, smooth=1e-8)
            sup = sup + cfg.ce_weight * entropy
            contrast = sup.new_zeros(())
            if count:
                drawn = self._draw(label, step, labeled.valid)
                rows = take_rows(widen(features[:count]), drawn)
                self._remember(rows, drawn, own.label)
                contrast = contrast + self._contrast(rows, drawn.chosen)
            if len(unlabeled.image):
                drawn = self._draw(other.label, step)
                rows = take_rows(widen(features[count:]), drawn)
                contrast = contrast + self._contrast(rows, drawn.chosen)
        step.note("remembered", self.filled.sum())
        terms = {"sup": sup, "contrast": cfg.contrast_weight * weight * contrast}
        terms["vat"] = cfg.vat_weight * weight * self._vat(images, step)
        return terms

    def _draw(self, label: Tensor, step: Step, valid: Tensor | None = None) -> Rows:
        rows = self.config.rows * len(label)
        return draw_rows(label, self.net.num_classes, rows, step.generator, valid)

    @torch.no_grad()
    def _remember(self, rows: Tensor, drawn: Rows, predicted: Tensor) -> None:
        """Replace the memory of each class that has correctly predicted voxels among the rows."""
        with fixed(self.projection), fixed(self.selectors):
            projected = self.projection(rows.flatten(0, 1)).view(*rows.shape[:2], -1)
            score = self._scores(self.selectors, projected)
        classes = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        right = drawn.chosen & (predicted.flatten()[drawn.voxel] == classes)
        if self.config.variant == "released":
            score, right = -score, right & (classes > 0)
        found, filled = best_rows(projected, score, right, self.config.memory_size)
        replace = filled.any(dim=1, keepdim=True)
        self.memory = torch.where(replace.unsqueeze(2), found, self.memory)
        self.filled = torch.where(replace, filled, self.filled)

    def _contrast(self, rows: Tensor, chosen: Tensor) -> Tensor:
        """Average over classes the distance to the memory; 0 for a class with less than two of each."""
        embedded = self.prediction(self.projection(rows.flatten(0, 1))).view(*rows.shape[:2], -1)
        weights = self._scores(self.selectors, embedded.detach()) * chosen
        remembered = self.filled.to(rows.dtype)
        if self.config.variant == "paper":
            remembered = remembered * self._scores(self.memory_selectors, normalize(self.memory, dim=2))
        distances = weighted_cosine_distance(embedded, weights, self.memory, remembered)
        return (distances * ((chosen.sum(dim=1) > 1) & (self.filled.sum(dim=1) > 1))).mean()

    @staticmethod
    def _scores(selectors: nn.ModuleList, rows: Tensor) -> Tensor:
        """Sigmoid of each class's selector on its rows (K, R, D), 0..1, (K, R)."""
        scores = [selector(own).squeeze(1) for selector, own in zip(selectors, rows, strict=True)]
        return torch.sigmoid(torch.stack(scores))

    def _vat(self, images: Tensor, step: Step) -> Tensor:
        """Measure smoothness around a prediction with another draw of dropout, as published."""
        with torch.no_grad():
            logits = self.net(images)
        with full_precision(images):
            target = Prediction.of(logits).probs
        cfg = self.config
        return virtual_adversarial_loss(
            self.net, images, target, radius=cfg.epsilon, probe_radius=cfg.xi, power_steps=cfg.power_steps,
            generator=step.generator,
        )  # fmt: skip


def overlap_loss(p: Tensor, q: Tensor) -> Tensor:
    """Compute 1 - mean over voxels of sum_c p_c q_c, a linear Dice loss; for p = q it is lowest if sure."""
    return mean(1.0 - (p * q).sum(dim=1))


def unit(values: Tensor) -> Tensor:
    """Scale each sample (B, ...) to length 1 over all its elements; zeros stay."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1) + 1e-8
    return values / norms.view(-1, *(1,) * (values.dim() - 1))


def virtual_adversarial_loss(
    net: nn.Module,
    image: Tensor,
    target: Tensor,
    *,
    radius: float,
    probe_radius: float,
    power_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Compute `overlap_loss` of the target and the prediction on the image moved by `radius` against it.

    The direction starts at random and becomes the loss's gradient at `probe_radius`, `power_steps` times. The
    probes leave no gradients behind, and neither they nor the last pass change running statistics.

    Args:
        net: image -> logits (B, K, X, Y, Z).
        image: (B, C, X, Y, Z).
        target: q, probabilities without gradient.
        radius, probe_radius: lengths over all voxels and channels of a sample.
        power_steps: 0 leaves the random direction.
        generator: on the image's device.

    Source: Miyato et al., "Virtual adversarial training", TPAMI 2019.
    """
    noise = torch.rand(image.shape, generator=generator, device=image.device, dtype=image.dtype)
    direction = unit(noise - 0.5)

    def loss_at(shift: Tensor) -> Tensor:
        moved = torch.empty_like(image).copy_(image + shift)  # in the image's layout, also with 1 channel
        logits = net(moved)
        with full_precision(image):
            return overlap_loss(Prediction.of(logits).probs, target)

    layers = [part for part in net.modules() if isinstance(part, _BatchNorm)]
    with switched_off("track_running_stats", layers):
        for _ in range(power_steps):
            with torch.enable_grad():
                probe = direction.detach().requires_grad_()
                total = loss_at(probe_radius * probe) * target[:, 0].numel()  # that of a mean may underflow
                direction = unit(torch.autograd.grad(total, probe)[0])
        return loss_at(radius * direction)


def _head(inputs: int, hidden: int, outputs: int, activation: nn.Module) -> nn.Sequential:
    middle = nn.BatchNorm1d(hidden), activation
    return nn.Sequential(nn.Linear(inputs, hidden), *middle, nn.Linear(hidden, outputs))
