"""Dual-network training with uncertainty-guided pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.consistency import (
    rectified_cross_entropy,
    squared_error,
    squared_error_to_label,
    symmetric_kl,
)
from semivox.losses.prediction import Prediction
from semivox.losses.prototypes import prototype_terms, voxel_rows
from semivox.losses.pseudo import Teaching, confident_foreground, foreground_label, joint_label
from semivox.losses.reduction import both, masked_mean, mean
from semivox.losses.schedule import sigmoid_rampup
from semivox.losses.supervised import cross_entropy_dice, dice_loss, nll
from semivox.methods.base import Batch, PseudoLabel, Step, full_precision
from semivox.methods.teaching_pair import TeachingPair

PROTOTYPE_SIGN = {"repel": -1.0, "attract": 1.0, "none": 0.0}


class Dual(TeachingPair):
    """Two different networks learn from labels, from each other's pseudo-labels and from class prototypes.

    A and B see the same 2 labeled + 2 unlabeled patches. There is no teacher and no sampling; at inference
    their softmax maps are averaged.

    Source: Lu, Wu, Chaddad et al., "Enhancing Dual Network Based Semi-Supervised Medical Image Segmentation
    with Uncertainty-Guided Pseudo-Labeling", arXiv 2509.13084, 2025. Written from its prose; where that
    leaves a choice, an option names the readings. Features are taken before the head's dropout.
    """

    class Config(TeachingPair.Config):
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
        cr_target: Literal["mutual", "label"] = Field(
            "mutual", description="CR: pull the networks to each other, or each to the label"
        )
        tau_p: float = Field(0.6, ge=0, le=1, description="CPS: probability above which foreground is taught")
        exclude_uncertain: bool = Field(False, description="CPS: on reliable voxels only")
        alpha: float = Field(
            70.0, ge=0, le=100, description="EFS, PGL: entropy percentile; 80 for Pancreas-CT, 30 for BraTS"
        )
        efs_target: Literal["union", "lower_entropy"] = Field(
            "union", description="EFS: where labels differ, foreground wins, or the lower entropy"
        )
        efs_normalise: Literal["total", "mean"] = Field(
            "total", description="EFS: mean over valid voxels times all / valid voxels, or the mean itself"
        )
        temperature: float = Field(0.5, gt=0, description="UE: of the teaching distribution; < 1 sharpens")
        prototype_term: Literal["repel", "attract", "none"] = Field(
            "repel", description="PGL: what prototypes of different classes do"
        )
        pull_fraction: float = Field(0.01, gt=0, le=1, description="PGL: share of uncertain voxels drawn")
        lambda_max: float = Field(0.1, ge=0, description="PGL: weight at the end of its ramp over the run")
        unsup_ramp: Literal["none", "sigmoid"] = Field(
            "none", description="weight of CR, CPS, EFS and UE: full from the start, or ramped up"
        )
        unsup_weight: float = Field(1.0, ge=0, description="final weight of CPS, EFS and UE; the paper has 1")
        warmup_fraction: float = Field(
            0.0,
            ge=0,
            lt=1,
            description="share of the run, at its beginning, in which each network learns from labels only",
        )
        ramp_fraction: float = Field(
            1.0, gt=0, le=1, description="share of the run that the ramp takes, after the warm-up"
        )
        pseudo_dice: bool = Field(False, description="CPS, EFS: Dice beside the cross-entropy")

    partial_labels: ClassVar[bool] = True
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Eq. 1: L = L_sup + lambda(t) L_PGL + w(t) (L_CCE + L_UE), with L_CCE = L_CPS + L_EFS."""
        cfg = self.config
        ramp, weight, weight_pgl = self._weights(step)
        if step.fraction < cfg.warmup_fraction:
            labeled, unlabeled = self.labels_only(labeled, unlabeled, step)
        count = len(labeled.image)
        images, taught = self.inputs(labeled, unlabeled, step, cfg.alpha)
        features_a, features_b = self.net_a.features(images), self.net_b.features(images)
        logits_a, logits_b = self.net_a.head(features_a), self.net_b.head(features_b)

        with full_precision(images):
            a, b = Prediction.of(logits_a), Prediction.of(logits_b)
            terms: dict[str, Tensor] = {}
            for name, own in (("a", a[:count]), ("b", b[:count])):  # Eq. 2
                terms[f"sup_{name}"] = cross_entropy_dice(
                    own.log_probs, own.probs, labeled.target, labeled.counted
                )
            if cfg.cr:  # Eq. 2, 4-6
                terms["cr"] = ramp * cfg.beta * self._cr(a[:count], b[:count], labeled, step)
            if cfg.ue:  # Eq. 13-15, on the whole batch
                terms["ue"] = weight * self._ue(a, b, count, taught)

            a, b = a[count:], b[count:]
            from_a, from_b = taught or (Teaching.of(a, cfg.alpha), Teaching.of(b, cfg.alpha))
            step.note("threshold_a", from_a.threshold)
            step.note("threshold_b", from_b.threshold)
            agree = from_a.prediction.label == from_b.prediction.label
            reliable = agree & from_a.low & from_b.low
            if cfg.cps:
                terms["cps"] = weight * self._cps(a, b, from_a, from_b, reliable)
            if cfg.efs:
                terms["efs"] = weight * self._efs(a, b, from_a, from_b, step)
            if cfg.pgl:
                terms["pgl"] = weight_pgl * self._pgl(
                    ((from_a, voxel_rows(features_a, count)), (from_b, voxel_rows(features_b, count))),
                    reliable,
                    step,
                )
        return terms

    def _weights(self, step: Step) -> tuple[float, float, float]:
        """The ramp, which CR takes too, w(t) and lambda(t).

        In the warm-up each network learns from the labels alone: CR would pull the one that has found the
        foreground first back to the other.
        """
        cfg = self.config
        after = step.fraction - cfg.warmup_fraction
        ramp = 1.0 if cfg.unsup_ramp == "none" else sigmoid_rampup(after / cfg.ramp_fraction)
        ramp = ramp if after >= 0 else 0.0
        weight = cfg.unsup_weight * ramp
        weight_pgl = cfg.lambda_max * sigmoid_rampup(step.fraction)
        step.note("weight_unsup", weight)
        step.note("weight_pgl", weight_pgl)
        return ramp, weight, weight_pgl

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Labels of "a" and "b"; those that CPS and EFS teach; where EFS teaches; the reliable set.

        All are shown, also those of terms that are switched off.
        """
        cfg = self.config
        from_a, from_b = self.teachings(image, cfg.alpha)
        a, b = from_a.prediction, from_b.prediction
        joint = joint_label(a.label, b.label, from_a.entropy, from_b.entropy, cfg.efs_target)
        return {
            "a": PseudoLabel(a.label, probs=a.probs),
            "b": PseudoLabel(b.label, probs=b.probs),
            "cps_a": PseudoLabel(foreground_label(a.probs, cfg.tau_p)),
            "cps_b": PseudoLabel(foreground_label(b.probs, cfg.tau_p)),
            "joint": PseudoLabel(joint),
            "filtered": PseudoLabel(joint, valid=from_a.low | from_b.low),
            "reliable": PseudoLabel(a.label, valid=(a.label == b.label) & from_a.low & from_b.low),
        }

    def _cr(self, a: Prediction, b: Prediction, labeled: Batch, step: Step) -> Tensor:
        """Eq. 4-6: mean distance over M, the voxels where A and B confidently disagree."""
        cfg = self.config
        sure_a, sure_b = confident_foreground(a, cfg.tau), confident_foreground(b, cfg.tau)
        mask = sure_a != sure_b if cfg.cr_mask == "xor" else (sure_a > 0) | (sure_b > 0)
        mask, label = both(mask, labeled.counted), labeled.target
        match cfg.cr_target, cfg.cr_distance:
            case "mutual", "mse":
                distance = squared_error(a.probs, b.probs)
            case "mutual", "kl":
                distance = symmetric_kl(a.log_probs, b.log_probs)
            case "label", "mse":
                distance = squared_error_to_label(a.probs, label) + squared_error_to_label(b.probs, label)
            case _:  # KL(one-hot label || p) is the cross-entropy
                distance = nll(a.log_probs, label) + nll(b.log_probs, label)
        step.note("cr_share", mean(mask))
        return masked_mean(distance, mask)

    def _ue(
        self, a: Prediction, b: Prediction, count: int, taught: tuple[Teaching, Teaching] | None
    ) -> Tensor:
        """Eq. 13-15: each learns the other's distribution, less where they differ."""
        teacher_a, teacher_b, mask = a, b, None
        if taught is not None:
            teacher_a, teacher_b = (
                a[:count].joined(taught[0].prediction),
                b[:count].joined(taught[1].prediction),
            )
            if taught[0].taught is not None:
                mask = torch.cat([torch.ones_like(a.label[:count], dtype=torch.bool), taught[0].taught])
        pairs, temperature = ((a, teacher_b), (b, teacher_a)), self.config.temperature
        loss_a, loss_b = (rectified_cross_entropy(*pair, temperature, mask) for pair in pairs)
        return loss_a + loss_b

    def _cps(
        self, a: Prediction, b: Prediction, from_a: Teaching, from_b: Teaching, reliable: Tensor
    ) -> Tensor:
        """Eq. 7-8: CE(z_A, label of B) + CE(z_B, label of A)."""
        cfg = self.config
        label_a = foreground_label(from_a.prediction.probs, cfg.tau_p)
        label_b = foreground_label(from_b.prediction.probs, cfg.tau_p)
        valid = reliable if cfg.exclude_uncertain else from_a.taught
        return self._pseudo_loss(a, label_b, valid) + self._pseudo_loss(b, label_a, valid)

    def _efs(self, a: Prediction, b: Prediction, from_a: Teaching, from_b: Teaching, step: Step) -> Tensor:
        """Eq. 9-12: both learn one label wherever either is certain."""
        valid = from_a.low | from_b.low
        target = joint_label(
            from_a.prediction.label,
            from_b.prediction.label,
            from_a.entropy,
            from_b.entropy,
            self.config.efs_target,
        )
        step.note("efs_valid_share", mean(valid))
        loss = self._pseudo_loss(a, target, valid) + self._pseudo_loss(b, target, valid)
        if self.config.efs_normalise == "total":
            loss = loss * valid.numel() / valid.sum().clamp_min(1)
        return loss

    def _pseudo_loss(self, student: Prediction, label: Tensor, valid: Tensor | None) -> Tensor:
        """Cross-entropy (and Dice, if asked for) against a pseudo-label, on the valid voxels."""
        loss = masked_mean(nll(student.log_probs, label), valid)
        if self.config.pseudo_dice and len(label):
            loss = loss + dice_loss(student.probs, label, mask=valid)
        return loss

    def _pgl(self, networks: Sequence[tuple[Teaching, Tensor]], reliable: Tensor, step: Step) -> Tensor:
        """Eq. 16-20: uncertain features are pulled to the prototype of their class, prototypes apart."""
        total = torch.zeros((), device=reliable.device)
        for name, (own, features) in zip("ab", networks, strict=True):
            terms = prototype_terms(
                features,
                own.prediction.label,
                reliable,
                num_classes=own.prediction.num_classes,
                counted=own.taught,
                fraction=self.config.pull_fraction,
                generator=step.generator,
            )
            total = total + terms.pull + PROTOTYPE_SIGN[self.config.prototype_term] * terms.apart
            step.note(f"pgl_pull_{name}", terms.pull)
            step.note(f"pgl_apart_{name}", terms.apart)
        for index, size in enumerate(terms.sizes):  # the same for both networks
            step.note(f"reliable_{index}", size)
        step.note("pgl_skipped_classes", (terms.sizes == 0).sum())
        return total
