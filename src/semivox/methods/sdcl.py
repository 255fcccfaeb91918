"""SDCL: two students learn from mixtures, and are corrected where they differ."""

from __future__ import annotations

from copy import deepcopy

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import mean_squared_error
from semivox.losses.mixing import region_loss
from semivox.losses.prediction import Prediction
from semivox.losses.supervised import masked_mean, mean, onehot
from semivox.methods.base import Batch, PairMethod, PseudoLabel, Step, full_precision, update_ema
from semivox.methods.bcp import CopyPaste
from semivox.nets import NetFactory


class SDCL(PairMethod):
    """Two students learn the mixtures of `bcp`; where their labels differ, both are corrected.

    A moving average of A alone labels the unlabeled patches for both. With y the mixed label, w = 1 in
    labeled and alpha in pseudo-labeled parts, D the voxels where the labels of A and B differ, and W those of
    D where the student's own label is not y, each student minimises the sum over both mixtures of

        L_bcp + 0.5 mean_D w e + 0.05 mean_W w h
        e = mean_c (p_c - y_c)^2,  h = -mean_c ln p_c

    h is smallest for the uniform distribution: where a student is wrong it is made unsure. Both means divide
    by the number of voxels, not by the sum of w. Before, both students learn mixtures of labeled patches;
    then the teacher starts as A's copy. It stays in training mode. The prediction is the students' mean.

    Source: Song and Wang, "SDCL: Students Discrepancy-Informed Correction Learning for Semi-supervised
    Medical Image Segmentation", MICCAI 2024, pp. 567-577, arXiv 2409.16728; constants of the released code
    (commit cfb260f). It trains with Adam at a constant learning rate and instance normalisation, see the
    preset `la-8-sdcl`, with one optimiser a student (the same as one for both), and keeps the checkpoints
    that score best on the test cases in both phases; here each phase ends with its last iteration. Published
    for one foreground class; here every class keeps its largest component.
    """

    batch = (4, 4)

    class Config(CopyPaste, PairMethod.Config):
        nets: tuple[str, str] = Field(
            ("vnet", "resnet34"), description="students A, whom the teacher follows, and B"
        )
        pretraining: float = Field(
            3200 / 14200, ge=0, lt=1, description="share of the run that mixes labeled patches only"
        )
        mse_weight: float = Field(0.5, ge=0, description="weight of the squared error where students differ")
        entropy_weight: float = Field(
            0.05, ge=0, description="weight of the pull to the uniform distribution where one is wrong"
        )
        ema_decay: float = Field(0.99, ge=0, le=1, description="EMA: share of the teacher that stays")

    config: Config

    def build(self, net: NetFactory) -> None:
        """Create both students, and the teacher as A's copy without gradients."""
        super().build(net)
        self.teacher = deepcopy(self.net_a).requires_grad_(False)

    def stages(self, iterations: int) -> tuple[float, ...]:
        """Return one stage, or with `fresh_optimizer` one for each phase."""
        return self.config.shares(iterations)

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup", "mix", "mse" and "entropy", each of A and B; all but "sup" are 0 in pre-training."""
        cfg, nothing = self.config, labeled.image.new_zeros((), dtype=torch.float32, requires_grad=True)
        if not len(labeled.image):
            return dict.fromkeys(("sup", "mix", "mse", "entropy"), nothing)
        terms: dict[str, list[Tensor]] = {"sup": [], "mix": [nothing], "mse": [nothing], "entropy": [nothing]}
        shares = []
        for mixture in cfg.mixtures(labeled, unlabeled, self.teacher, step):
            logits = [net(mixture.image) for net in (self.net_a, self.net_b)]
            with full_precision(mixture.image):
                a, b = map(Prediction.of, logits)
                terms["sup"] += [region_loss(own, mixture.label, mixture.known) for own in (a, b)]
                if mixture.taught is None:
                    continue
                differ = (a.label != b.label) & (mixture.known | mixture.taught)
                shares.append(mean(differ.float()))
                weight = torch.where(mixture.taught, cfg.alpha, 1.0)
                for own in (a, b):
                    terms["mix"].append(cfg.alpha * region_loss(own, mixture.label, mixture.taught))
                    error, entropy = self._correction(own, mixture.label, weight, differ)
                    terms["mse"].append(cfg.mse_weight * error)
                    terms["entropy"].append(cfg.entropy_weight * entropy)
        if shares:
            step.note("differ_share", torch.stack(shares).mean())
        return {name: torch.stack([one.float() for one in found]).sum() for name, found in terms.items()}

    @staticmethod
    def _correction(own: Prediction, label: Tensor, weight: Tensor, differ: Tensor) -> tuple[Tensor, Tensor]:
        """Average w e over the voxels that differ, and w h over those of them where the student is wrong."""
        error = mean_squared_error(own.probs, onehot(label, own.num_classes).to(own.probs.dtype))
        wrong = differ & (own.label != label)
        uncertainty = -own.log_probs.mean(dim=1)
        return masked_mean(weight * error, differ), masked_mean(weight * uncertainty, wrong)

    def after_step(self, step: Step) -> None:
        """Move the teacher by a constant decay; in pre-training it is A's copy."""
        update_ema(self.teacher, self.net_a, 0.0 if self.config.pretrains(step) else self.config.ema_decay)

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the labels of "a" and "b", and "taught", the teacher's after cleaning."""
        found = super().pseudo_labels(image)
        return {**found, "taught": PseudoLabel(self.config.taught(self.teacher, image))}
