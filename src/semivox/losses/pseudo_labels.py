"""Labels made from predictions, and how far to trust them; no pseudo-label carries a gradient.

Shapes as in `supervised`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from semivox.losses.prediction import Prediction, most_probable
from semivox.losses.prototypes import inverse_norm
from semivox.losses.supervised import masked_mean, nll, onehot

_CERTAIN = 30.0  # a logit whose probability is 1 to float precision, beside logits of 0


@dataclass(frozen=True)
class Teaching:
    """What one network says about unlabeled patches; without gradient, each (B, X, Y, Z)."""

    prediction: Prediction  # certain where the truth is known
    entropy: Tensor  # of it, nats
    own_entropy: Tensor  # the same before the truth was put in
    own_label: Tensor  # the label before the truth was put in
    taught: Tensor | None = None  # boolean, where anything is taught; None: everywhere

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        truth: Tensor | None = None,
        known: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Self:
        """Measure the entropy of whole unlabeled patches, then put the `truth` where it is `known`.

        `valid` is where the truth is a label; a known voxel outside teaches nothing.
        """
        prediction = prediction.detach()
        entropy = own = prediction.entropy()
        label = prediction.label
        if truth is not None and known is not None:
            certain = _CERTAIN * onehot(truth, prediction.num_classes)
            prediction = Prediction.of(torch.where(known.unsqueeze(1), certain, prediction.log_probs))
            entropy = torch.where(known, 0.0, entropy)
        taught = None if known is None or valid is None else ~known | valid
        return cls(prediction, entropy, own, label, taught)


@torch.no_grad()
def foreground_label(probs: Tensor, threshold: float) -> Tensor:
    """Take the most probable foreground class where its probability exceeds `threshold`, else background."""
    best, index = most_probable(probs[:, 1:])
    return torch.where(best > threshold, index + 1, 0)


@torch.no_grad()
def confident_foreground(prediction: Prediction, threshold: float) -> Tensor:
    """Keep the predicted class where it has a probability of at least `threshold`, else 0."""
    return torch.where(prediction.confidence >= threshold, prediction.label, 0)


@torch.no_grad()
def confident_disagreement(
    a: Prediction, b: Prediction, threshold: float, rule: Literal["xor", "or"] = "xor"
) -> Tensor:
    """Find the voxels where the confident foreground of two networks differs.

    xor: their labels from a probability of `threshold` on differ; or: at least one of these is foreground.
    """
    sure_a, sure_b = confident_foreground(a, threshold), confident_foreground(b, threshold)
    return sure_a != sure_b if rule == "xor" else (sure_a > 0) | (sure_b > 0)


@torch.no_grad()
def joint_label(
    label_a: Tensor,
    label_b: Tensor,
    entropy_a: Tensor,
    entropy_b: Tensor,
    rule: Literal["union", "lower_entropy"],
) -> Tensor:
    """Make one label of two: where they agree, that; where not, what `rule` says.

    union: foreground wins over background, the lower entropy between two foreground classes; lower_entropy:
    the lower entropy always, that of A if both are equal.
    """
    surer = torch.where(entropy_a <= entropy_b, label_a, label_b)
    if rule == "lower_entropy":
        return surer
    both_foreground = (label_a > 0) & (label_b > 0)
    return torch.where(both_foreground, surer, torch.maximum(label_a, label_b))


@torch.no_grad()
def prototype_similarity(features: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Compute the cosine between each voxel's feature and the mean feature of each class in its own sample.

    Features (B, D, X, Y, Z) -> (B, K, X, Y, Z), -1..1; 0 for a class without voxels and for a feature without
    direction.
    """
    flat = features.flatten(2)
    members = onehot(label, num_classes).flatten(2).to(flat.dtype)
    sums = torch.matmul(members, flat.transpose(1, 2))  # (B, K, D): of the direction of the means
    cosines = torch.matmul(sums, flat) * inverse_norm(flat).unsqueeze(1)
    cosines = cosines * inverse_norm(sums.transpose(1, 2)).unsqueeze(2)
    return cosines.view(*cosines.shape[:2], *label.shape[1:])


@torch.no_grad()
def reliability(probs: Tensor, similarity: Tensor) -> Tensor:
    """Measure how well probabilities agree with similarities: mean over classes of 1 - (s_c - p_c)^2.

    Features after a ReLU have cosines >= 0, which makes it 0..1; with others it is clamped to that.
    """
    return (1.0 - (similarity - probs).square()).mean(dim=1).clamp(0.0, 1.0)


def reliable_cross_entropy(student: Prediction, teacher: Prediction, features: Tensor) -> Tensor:
    """Teach the student the teacher's label where the teacher's entropy is the lower one.

    Returns the mean over these voxels of w CE(student, label), with w the `reliability` of the teacher, from
    its features (B, D, X, Y, Z). Gradient reaches the student's cross-entropy alone; where the entropies are
    equal nothing is taught.

    Source: Su et al., "Mutual learning with reliable pseudo label", Medical Image Analysis 2024.
    """
    surer = teacher.entropy() < student.entropy()
    similarity = prototype_similarity(features, teacher.label, teacher.num_classes)
    weight = reliability(teacher.probs, similarity)
    return masked_mean(weight * nll(student.log_probs, teacher.label), surer)
