"""Agreement of predictions from several scales with their average."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Literal

import torch
from torch import Tensor

from semivox.losses.consistency import kl_divergence, mean_squared_error
from semivox.losses.reduction import mean


def mean_log_probs(log_probs: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of several softmax maps, finite also where all of them vanish.

    Args:
        log_probs: (B, K, X, Y, Z) each.
    """
    return torch.logsumexp(torch.stack(list(log_probs)), dim=0) - log(len(log_probs))


def rectified_consistency(
    log_probs: Tensor, log_average: Tensor, kl: Literal["from_average", "to_average"] = "from_average"
) -> Tensor:
    """Distance of one scale from the average, less where the two differ, plus that difference.

    With D = KL(average || scale) per voxel and v = exp(-D):
    mean(v (average - scale)^2) / (mean(v) + 1e-8) + mean(D). Nothing is detached. No voxels give 0.

    Args:
        log_probs: the scale's log-softmax (B, K, X, Y, Z).
        log_average: that of the average.
        kl: from_average: D as above; to_average: D = KL(scale || average).

    Source: Luo et al., MICCAI 2021.
    """
    pair = (log_average, log_probs) if kl == "from_average" else (log_probs, log_average)
    divergence = kl_divergence(*pair)
    weight = torch.exp(-divergence)
    error = weight * mean_squared_error(log_probs.exp(), log_average.exp())
    return mean(error) / (mean(weight) + 1e-8) + mean(divergence)
