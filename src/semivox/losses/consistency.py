"""Differences between predictions: maps (B, X, Y, Z), or their means. Shapes as in `supervised`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import log
from typing import Literal

import torch
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.supervised import masked_mean, mean, nll, onehot


def squared_error(p: Tensor, q: Tensor) -> Tensor:
    """Sum (p_c - q_c)^2 over the foreground classes."""
    return (p[:, 1:] - q[:, 1:]).square().sum(dim=1)


def mean_squared_error(p: Tensor, q: Tensor) -> Tensor:
    """Average (p_c - q_c)^2 over all classes."""
    return (p - q).square().mean(dim=1)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Compute KL(p || q) = sum_c p_c (log p_c - log q_c) in nats."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def symmetric_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Compute (KL(p || q) + KL(q || p)) / 2."""
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1)


def pair_distance(
    a: Prediction, b: Prediction, kind: Literal["mse", "kl"], label: Tensor | None = None
) -> Tensor:
    """Measure how far two predictions are from each other or, with a label, the sum of both from it.

    mse: `squared_error`, to a label in its one-hot form; kl: `symmetric_kl`, to a label the cross-entropy.
    """
    if label is None:
        return squared_error(a.probs, b.probs) if kind == "mse" else symmetric_kl(a.log_probs, b.log_probs)
    if kind == "kl":
        return nll(a.log_probs, label) + nll(b.log_probs, label)
    target = onehot(label, a.num_classes).to(a.probs.dtype)
    return squared_error(a.probs, target) + squared_error(b.probs, target)


def tempered_divergence(student: Prediction, teacher: Prediction, temperature: float) -> Tensor:
    """Compute D = KL(q || p_student) with q = softmax(log p_teacher / T); no gradient reaches the teacher.

    A temperature T below 1 sharpens the teacher.
    """
    log_q = torch.log_softmax(teacher.log_probs.detach() / temperature, dim=1)
    return kl_divergence(log_q, student.log_probs)


def rectified_cross_entropy(
    student: Prediction, teacher: Prediction, divergence: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Teach the student the teacher's label, less where the two differ: mean(exp(-D) CE(student, label)).

    The mean is over the mask; the weight exp(-D), see `tempered_divergence`, carries gradient to the student.

    Source: the rectifying weight of Zheng and Yang, IJCV 2021.
    """
    return masked_mean(torch.exp(-divergence) * nll(student.log_probs, teacher.label), mask)


def sharpen(log_probs: Tensor, temperature: float) -> Tensor:
    """Compute softmax(log p / T); for two classes p^(1/T) / (p^(1/T) + (1 - p)^(1/T)) of each."""
    return torch.softmax(log_probs / temperature, dim=1)


def mutual_consistency(
    predictions: Sequence[Prediction], temperature: float, *, detach_targets: bool = False
) -> Tensor:
    """Regress each prediction on the sharpened form of every other one of the same images.

    Returns the sum over ordered pairs i != j of mean((p_i - sharpen(p_j))^2), a mean over samples, all
    classes and voxels. With `detach_targets` no gradient passes the sharpened form.

    Source: Wu et al., "Mutual consistency learning", Medical Image Analysis 2022; there, each class is
    sharpened against the rest, which for two classes is the same.
    """
    targets = [sharpen(prediction.log_probs, temperature) for prediction in predictions]
    if detach_targets:
        targets = [target.detach() for target in targets]
    pairs = permutations(range(len(predictions)), 2)
    return torch.stack([mean((predictions[i].probs - targets[j]).square()) for i, j in pairs]).sum()


def mean_log_probs(log_probs: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of several softmax maps; finite also where all of them vanish."""
    return torch.logsumexp(torch.stack(list(log_probs)), dim=0) - log(len(log_probs))


def rectified_consistency(
    log_probs: Tensor, log_average: Tensor, kl: Literal["from_average", "to_average"] = "from_average"
) -> Tensor:
    """Measure the distance of one scale from the average, less where the two differ, plus that difference.

    With D = KL(average || scale) per voxel and v = exp(-D):
    mean(v (average - scale)^2) / (mean(v) + 1e-8) + mean(D). Nothing is detached. No voxels return 0. With
    `kl` to_average, D = KL(scale || average).

    Source: Luo et al., MICCAI 2021.
    """
    pair = (log_average, log_probs) if kl == "from_average" else (log_probs, log_average)
    divergence = kl_divergence(*pair)
    weight = torch.exp(-divergence)
    error = weight * mean_squared_error(log_probs.exp(), log_average.exp())
    return mean(error) / (mean(weight) + 1e-8) + mean(divergence)
