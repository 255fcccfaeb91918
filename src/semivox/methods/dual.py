"""Dual-network training with uncertainty-guided pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import pair_distance, rectified_cross_entropy, tempered_divergence
from semivox.losses.prototypes import prototype_terms
from semivox.losses.pseudo_labels import Teaching, confident_disagreement, foreground_label, joint_label
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import both, masked_mean, mean
from semivox.methods.base import Batch, Step, full_precision
from semivox.methods.dual_released import released_terms
from semivox.methods.teaching_pair import Said, TeachingPair, View

SIGN = {"repel": -1.0, "attract": 1.0, "none": 0.0}  # of the distance between prototypes


class Dual(TeachingPair):
    """Two different networks learn from labels, from each other's pseudo-labels and from class prototypes.

    A and B see the same 2 labeled + 2 unlabeled patches; at inference their softmax maps are averaged.
    Options marked "ours" are additions, off by default.

    The introduction makes exp(-D) of UE a weight of the pseudo-supervised loss (`ue_reading: weight`, the
    default: it was ahead or equal in short runs on validation cases, docs/results/paper.md); section 3.3 and
    Table 4 allow a term of its own (`term`).

    Source: Lu, Wu, Chaddad et al., "Enhancing Dual Network Based Semi-Supervised Medical Image Segmentation
    with Uncertainty-Guided Pseudo-Labeling", arXiv 2509.13084, 2025. Options name readings of its prose.
    `variant: released` is the public code, see docs/concepts/released-code.md.
    """

    class Config(TeachingPair.Config):
        variant: Literal["paper", "released"] = Field("paper", description="the paper, or its public code")
        cr: bool = Field(True, description="term on labeled voxels where the networks confidently disagree")
        cps: bool = Field(True, description="cross pseudo supervision: each learns the other's labels")
        efs: bool = Field(True, description="entropy-filtered supervision by a label common to both")
        ue: bool = Field(True, description="uncertainty-rectified learning from the other's distribution")
        pgl: bool = Field(True, description="prototypes: pull uncertain features to those of their class")
        tau: float = Field(0.6, ge=0, le=1, description="CR: probability from which a network is confident")
        beta: float = Field(0.5, ge=0, description="CR: weight; 0.6 for Pancreas-CT")
        cr_mask: Literal["xor", "or"] = Field(
            "xor", description="CR: where the confident foreground labels differ, or where there is any"
        )
        cr_distance: Literal["mse", "kl"] = Field("mse", description="CR: squared error or symmetric KL")
        cr_target: Literal["mutual", "label"] = Field("mutual", description="CR: to each other or to labels")
        tau_p: float = Field(0.6, ge=0, le=1, description="CPS: probability above which foreground is taught")
        exclude_uncertain: bool = Field(False, description="CPS, EFS, UE: only on reliable unlabeled voxels")
        alpha: float = Field(70.0, ge=0, le=100, description="EFS, PGL: percentile; 80 Pancreas, 30 BraTS")
        pgl_percentile: Literal["unlabeled", "batch"] = Field("unlabeled", description="PGL: of which voxels")
        efs_target: Literal["union", "lower_entropy"] = Field(
            "union", description="EFS: where labels differ, foreground wins, or the lower entropy"
        )
        efs_normalise: Literal["total", "mean"] = Field(
            "total", description="EFS: mean over valid voxels times all / valid voxels, or the mean itself"
        )
        ue_reading: Literal["term", "weight"] = Field(
            "weight", description="UE: exp(-D) as weight of CPS and EFS, or exp(-D) CE as a term of its own"
        )
        ue_on: Literal["all", "unlabeled"] = Field("all", description="UE: patches whose D (and term) counts")
        temperature: float = Field(0.5, gt=0, description="UE: of the teaching distribution; < 1 sharpens")
        prototype_term: Literal["repel", "attract", "none"] = Field(
            "repel", description="PGL: what prototypes of different classes do"
        )
        pull_fraction: float = Field(0.01, gt=0, le=1, description="PGL: share of uncertain voxels drawn")
        lambda_max: float = Field(0.1, ge=0, description="PGL: weight at the end of its ramp over the run")

    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Eq. 1: L = L_sup + lambda(t) L_PGL + w(t) (L_CCE + L_UE), with L_CCE = L_CPS + L_EFS."""
        cfg, (ramp, weight) = self.config, self.weights(step)  # both 1 in the paper
        weight_pgl = cfg.lambda_max * sigmoid_rampup(step.fraction)
        step.note("weight_pgl", weight_pgl)
        labeled, a, b = self.views(labeled, unlabeled, step)
        with full_precision(labeled.image):
            sup_a, sup_b = (self.supervised(v.labeled, labeled, step, v.coarser) for v in (a, b))
            terms = {"sup_a": sup_a, "sup_b": sup_b}  # Eq. 2
            if cfg.variant == "released":
                return terms | released_terms(a, b, labeled, step)
            if cfg.cr:  # Eq. 4-6: over M, the voxels where A and B confidently disagree
                mask = confident_disagreement(a.labeled, b.labeled, cfg.tau, cfg.cr_mask)
                mask, label = both(mask, labeled.valid), labeled.target if cfg.cr_target == "label" else None
                distance = pair_distance(a.labeled, b.labeled, cfg.cr_distance, label)
                terms["cr"] = ramp * cfg.beta * masked_mean(distance, mask)
                step.note("cr_share", mean(mask))
            said = self.said(a.teaching, b.teaching, (a, b), step)
            only = said.reliable if cfg.exclude_uncertain else a.teaching.taught
            weights: tuple[Tensor | None, Tensor | None] = (None, None)
            if cfg.ue:  # Eq. 13-15, in both directions
                (ue_a, weight_a), (ue_b, weight_b) = self._ue(a, b, only), self._ue(b, a, only)
                terms["ue"], weights = weight * (ue_a + ue_b), (weight_a, weight_b)
            if cfg.cps:  # Eq. 7-8: each learns the label of the other
                terms["cps"] = weight * self.pseudo_losses((a, b), (said.by_b, said.by_a), only, weights)
            if cfg.efs:  # Eq. 9-11: both learn one label wherever either is certain
                valid = both(said.certain, only)
                count = valid.sum().clamp_min(1).to(a.whole.probs.dtype)
                scale = valid.numel() / count if cfg.efs_normalise == "total" else 1.0
                terms["efs"] = weight * self.pseudo_losses((a, b), (said.joint,) * 2, valid, weights, scale)
                step.note("efs_valid_share", mean(valid))
            if cfg.pgl:  # Eq. 16-20
                terms["pgl"] = weight_pgl * self._pgl((a, b), said.reliable, step)
        return terms

    def said(self, a: Teaching, b: Teaching, views: Sequence[View] = (), step: Step | None = None) -> Said:
        """Make the pseudo-labels of CPS and EFS (Eq. 7, 11); find the certain and the reliable voxels."""
        cfg = self.config
        joint = joint_label(a.prediction.label, b.prediction.label, a.entropy, b.entropy, cfg.efs_target)
        own = [foreground_label(one.prediction.probs, cfg.tau_p) for one in (a, b)]
        others = views if cfg.pgl_percentile == "batch" else ()
        return Said(own[0], own[1], joint, *self.trusted(a, b, cfg.alpha, others, step))

    def _ue(self, student: View, teacher: View, only: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Learn the other's distribution, less where the two differ; return L_UE, and exp(-D) as a weight."""
        own, other, count = student.unlabeled, teacher.teaching.prediction, 0
        if self.config.ue_on == "all":
            own, other, count = student.whole, teacher.taught, student.count
            only = only if only is None else torch.cat([torch.ones_like(own.label[:count]).bool(), only])
        divergence = tempered_divergence(own, other, self.config.temperature)
        loss = masked_mean(divergence, only)
        if self.config.ue_reading == "weight":
            return loss, torch.exp(-divergence[count:])
        return loss + rectified_cross_entropy(own, other, divergence, only), None

    def _pgl(self, views: Sequence[View], reliable: Tensor, step: Step) -> Tensor:
        """Pull uncertain features to the prototype of their class, and prototypes apart."""
        total = torch.zeros((), device=reliable.device)
        for name, own in zip("ab", views, strict=True):
            found = prototype_terms(
                own.features, own.teaching.prediction.label, reliable, num_classes=own.whole.num_classes,
                valid=own.teaching.taught, fraction=self.config.pull_fraction, generator=step.generator,
            )  # fmt: skip
            total = total + found.pull + SIGN[self.config.prototype_term] * found.apart
            step.note(f"pgl_pull_{name}", found.pull)
            step.note(f"pgl_apart_{name}", found.apart)
        for index, size in enumerate(found.sizes):  # the same for both networks
            step.note(f"reliable_{index}", size)
        step.note("pgl_skipped_classes", (found.sizes == 0).sum())
        return total
