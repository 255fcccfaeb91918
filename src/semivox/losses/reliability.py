"""Learning another decoder's label where it is the surer one, as much as its features bear it out."""

from __future__ import annotations

import torch
from torch import Tensor

from semivox.losses.norms import inverse_norm
from semivox.losses.prediction import Prediction
from semivox.losses.reduction import masked_mean
from semivox.losses.supervised import nll, onehot


@torch.no_grad()
def prototype_similarity(features: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Cosine between each voxel's feature and the mean feature of each class in its own sample.

    Args:
        features: (B, D, X, Y, Z).
        label: which voxels make up a class, (B, X, Y, Z) int64.
        num_classes: K.

    Returns:
        (B, K, X, Y, Z), -1..1; 0 for a class without voxels and for a feature without direction.
    """
    flat = features.flatten(2)
    members = onehot(label, num_classes).flatten(2).to(flat.dtype)
    sums = torch.matmul(members, flat.transpose(1, 2))  # (B, K, D): of the direction of the means
    cosines = torch.matmul(sums, flat) * inverse_norm(flat).unsqueeze(1)
    cosines = cosines * inverse_norm(sums.transpose(1, 2)).unsqueeze(2)
    return cosines.view(*cosines.shape[:2], *label.shape[1:])


@torch.no_grad()
def reliability(probs: Tensor, similarity: Tensor) -> Tensor:
    """How well probabilities agree with similarities: mean over classes of 1 - (s_c - p_c)^2, (B, X, Y, Z).

    Features after a ReLU have cosines >= 0, which makes it 0..1; with others it is clamped to that.

    Args:
        probs: (B, K, X, Y, Z).
        similarity: (B, K, X, Y, Z), see `prototype_similarity`.
    """
    return (1.0 - (similarity - probs).square()).mean(dim=1).clamp(0.0, 1.0)


def reliable_cross_entropy(student: Prediction, teacher: Prediction, features: Tensor) -> Tensor:
    """Teach the student the teacher's label where the teacher's entropy is the lower one.

    The mean over these voxels of w CE(student, label), with w the `reliability` of the teacher. Gradient
    reaches the student's cross-entropy alone; where the entropies are equal nothing is taught.

    Args:
        student: the decoder that learns.
        teacher: the other one.
        features: the teacher's, (B, D, X, Y, Z).

    Source: Su et al., "Mutual learning with reliable pseudo label", Medical Image Analysis 2024.
    """
    surer = teacher.entropy() < student.entropy()
    similarity = prototype_similarity(features, teacher.label, teacher.num_classes)
    weight = reliability(teacher.probs, similarity)
    return masked_mean(weight * nll(student.log_probs, teacher.label), surer)
