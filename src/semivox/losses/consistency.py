"""Differences between two predictions, voxel by voxel: inputs (B, K, X, Y, Z), outputs (B, X, Y, Z)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.reduction import masked_mean, mean
from semivox.losses.supervised import nll, onehot


def squared_error(p: Tensor, q: Tensor) -> Tensor:
    """Sum over the foreground classes of (p_c - q_c)^2."""
    return (p[:, 1:] - q[:, 1:]).square().sum(dim=1)


def mean_squared_error(p: Tensor, q: Tensor) -> Tensor:
    """Mean over all classes of (p_c - q_c)^2."""
    return (p - q).square().mean(dim=1)


def squared_error_to_label(p: Tensor, label: Tensor) -> Tensor:
    """`squared_error` to the one-hot form of a label (B, X, Y, Z)."""
    return squared_error(p, onehot(label, p.shape[1]).to(p.dtype))


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) = sum_c p_c (log p_c - log q_c) in nats, from log-probabilities, over all classes."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def symmetric_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(KL(p || q) + KL(q || p)) / 2."""
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1)


def rectified_cross_entropy(
    student: Prediction, teacher: Prediction, temperature: float, mask: Tensor | None = None
) -> Tensor:
    """Teach the student the teacher's label, less where the two differ, and shrink that difference.

    With q = softmax(log p_teacher / T) and D = KL(q || p_student) per voxel:
    mean(exp(-D) CE(student, argmax q)) + mean(D). The weight exp(-D) carries gradient to the student; none
    reaches the teacher.

    Args:
        student: the network that learns.
        teacher: the other one.
        temperature: T; below 1 sharpens the teacher.
        mask: boolean (B, X, Y, Z), the voxels that are taught; None: all.

    Source: the rectifying weight of Zheng and Yang, IJCV 2021.
    """
    log_q = torch.log_softmax(teacher.log_probs.detach() / temperature, dim=1)
    divergence = kl_divergence(log_q, student.log_probs)
    taught = torch.exp(-divergence) * nll(student.log_probs, teacher.label)
    return masked_mean(taught, mask) + masked_mean(divergence, mask)


def sharpen(log_probs: Tensor, temperature: float) -> Tensor:
    """softmax(log p / T), (B, K, X, Y, Z); for two classes p^(1/T) / (p^(1/T) + (1 - p)^(1/T)) of each."""
    return torch.softmax(log_probs / temperature, dim=1)


def mutual_consistency(
    predictions: Sequence[Prediction], temperature: float, *, detach_targets: bool = False
) -> Tensor:
    """Regress each prediction on the sharpened form of every other one.

    The sum over ordered pairs i != j of mean((p_i - sharpen(p_j))^2), a mean over samples, all classes and
    voxels.

    Args:
        predictions: of the same images.
        temperature: T; below 1 sharpens.
        detach_targets: let no gradient through the sharpened form.

    Source: Wu et al., "Mutual consistency learning", Medical Image Analysis 2022; there, each class is
        sharpened against the rest, which for two classes is the same.
    """
    targets = [sharpen(prediction.log_probs, temperature) for prediction in predictions]
    if detach_targets:
        targets = [target.detach() for target in targets]
    pairs = permutations(range(len(predictions)), 2)
    return torch.stack([mean((predictions[i].probs - targets[j]).square()) for i, j in pairs]).sum()
