"""Two networks, a common pseudo-label, and contrast of unreliable features with reliable prototypes."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.prototypes import prototype_terms, voxel_rows
from semivox.losses.pseudo_labels import confident_disagreement, joint_label
from semivox.losses.schedules import sigmoid_rampup
from semivox.losses.supervised import masked_mean, mean, nll
from semivox.losses.uncertainty import percentile
from semivox.methods.base import Batch, PseudoLabel, Step, full_precision
from semivox.methods.mcf import ReviewedPair


class LUSEG(ReviewedPair):
    """Two different networks share a pseudo-label; the worse one's unreliable features move to prototypes.

    Labeled, D = voxels where the confident foreground labels (p >= tau, else background) of both differ:

        L_sup = sum_k CE + Dice + 0.5 mean over D of the squared error of p_k to the label

    Unlabeled: a voxel is unreliable if both entropies reach their percentile; the label is the union of both
    foregrounds (between two foreground classes, the one of lower entropy). The network with the higher Dice
    loss on this step's labeled patches has unit features f, and prototypes mu_c: their normalised means over
    reliable voxels of class c. With Q_c a hundredth of the unreliable voxels of predicted class c:

        L_u = sum_k mean over reliable voxels of CE(p_k, label)
        L_con = sum_c mean over Q_c of ||f - mu_c|| - mean over pairs of ||mu_c - mu_c'||
        L = L_sup + r(t) L_u + 0.1 r(t) L_con,  r(t) = exp(-5 (1 - t/t_max)^2)

    Source: Karimijafarbigloo et al., "Leveraging Unlabeled Data for 3D Medical Image Segmentation through
    Self-Supervised Contrastive Learning", ISBI 2024, arXiv 2311.12617. Features are taken before the head's
    dropout; several classes and channels are a generalisation.

    In the released code L_u is computed from detached probabilities (taken as logits) and L_con without
    gradients, so that neither trains a parameter; the distance between prototypes is added instead of
    subtracted. Checked by running it: neither loss requires a gradient. `variant: released` does the same:
    it trains two networks on the labels, with D, and only logs the others (L_u times all / reliable voxels).
    """

    class Config(ReviewedPair.Config):
        variant: Literal["paper", "released"] = Field(
            "paper", description="paper: every term learns; released: those on unlabeled data only log"
        )
        tau: float = Field(0.6, ge=0, le=1, description="probability from which a network is confident")
        disagreement_weight: float = Field(0.5, ge=0, description="weight of the squared error on D")
        alpha: float = Field(20.0, ge=0, le=100, description="entropy percentile of reliable voxels")
        pull_fraction: float = Field(0.01, gt=0, le=1, description="share of unreliable voxels drawn")
        margin: float | None = Field(
            None, gt=0, description="push prototypes apart only up to this distance (0..2); null: always"
        )
        pseudo_weight: float = Field(1.0, ge=0, description="L_u: weight at the end of its ramp over the run")
        lambda_max: float = Field(0.1, ge=0, description="L_con: weight at the end of its ramp over the run")

    needs_features = True
    config: Config

    def losses(self, labeled: Batch, unlabeled: Batch, step: Step) -> dict[str, Tensor]:
        """Compute "sup_a", "sup_b", "cdr" on labeled and "pseudo", "contrast" on unlabeled patches."""
        cfg, count, released = self.config, len(labeled.image), self.config.variant == "released"
        ramp = sigmoid_rampup(step.fraction)
        images = torch.cat([labeled.image, unlabeled.image])
        passes = self.feature_scales((self.net_a, self.net_b), images)
        (features_a, logits_a, coarser_a), (features_b, logits_b, coarser_b) = passes
        with full_precision(images):
            whole_a, whole_b = Prediction.of(logits_a), Prediction.of(logits_b)
            a, b = whole_a[:count], whole_b[:count]
            differ = confident_disagreement(a, b, cfg.tau)
            terms, a_wins = self.reviewed(
                (a, b), (coarser_a, coarser_b), labeled, differ, cfg.disagreement_weight, step
            )
            step.note("a_wins", a_wins)

            a, b = whole_a[count:], whole_b[count:]
            target, reliable = self._common_label(a, b)
            step.note("reliable_share", mean(reliable))
            loser = torch.where(a_wins, b.label, a.label)
            features = torch.where(a_wins, voxel_rows(features_b, count), voxel_rows(features_a, count))
            pseudo = self._pseudo(a, target, reliable) + self._pseudo(b, target, reliable)
            contrast = self._contrast(features, loser, target, reliable, a.num_classes, step)
        terms["pseudo"] = cfg.pseudo_weight * (1.0 if released else ramp) * pseudo
        terms["contrast"] = cfg.lambda_max * ramp * contrast
        if released:
            terms |= {name: terms[name].detach() for name in ("pseudo", "contrast")}
        return terms

    def pseudo_labels(self, image: Tensor) -> dict[str, PseudoLabel]:
        """Show the labels of "a" and "b", and "taught", the common label with its reliable voxels."""
        logits = self.net_a(image), self.net_b(image)
        with full_precision(image):
            a, b = map(Prediction.of, logits)
            taught = PseudoLabel(*self._common_label(a, b))
        return {"a": PseudoLabel.of(a.probs), "b": PseudoLabel.of(b.probs), "taught": taught}

    def _common_label(self, a: Prediction, b: Prediction) -> tuple[Tensor, Tensor]:
        """Return the union of both foregrounds, and the reliable voxels: where either entropy is low."""
        entropy_a, entropy_b = a.entropy(), b.entropy()
        low_a = entropy_a < percentile(entropy_a, self.config.alpha)
        low_b = entropy_b < percentile(entropy_b, self.config.alpha)
        return joint_label(a.label, b.label, entropy_a, entropy_b, "union"), low_a | low_b

    def _pseudo(self, own: Prediction, target: Tensor, reliable: Tensor) -> Tensor:
        """Cross-entropy of one network with the common label, on reliable voxels."""
        if self.config.variant == "paper":
            return masked_mean(nll(own.log_probs, target), reliable)
        twice = torch.log_softmax(own.probs, dim=1)
        return masked_mean(nll(twice, target), reliable) * reliable.numel() / reliable.sum().clamp_min(1)

    def _contrast(
        self, features: Tensor, predicted: Tensor, target: Tensor, reliable: Tensor, classes: int, step: Step
    ) -> Tensor:
        """Unreliable features of each predicted class to its prototype; prototypes apart."""
        terms = prototype_terms(
            features, target, reliable, query_label=predicted, num_classes=classes,
            fraction=self.config.pull_fraction, generator=step.generator,
        )  # fmt: skip
        step.note("contrast_pull", terms.pull)
        step.note("contrast_apart", terms.apart)
        if self.config.variant == "released":
            return terms.pull + terms.apart
        if self.config.margin is None:
            return terms.pull - terms.apart
        several = (terms.sizes > 0).sum() > 1
        return terms.pull + several * torch.relu(self.config.margin - terms.apart)
