"""Class prototypes in feature space: unit vectors, compared by Euclidean distance.

Features are rows, (M, D) for M voxels, in the precision of the network: see `voxel_rows`. They are never
normalised as a whole, and only those that are drawn are compared with a prototype.
"""

from __future__ import annotations

from math import ceil, log1p, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from semivox.losses.norms import TINY, inverse_norm
from semivox.losses.prediction import widen
from semivox.losses.reduction import both, masked_mean


def voxel_rows(features: Tensor, start: int = 0) -> Tensor:
    """(B, D, X, Y, Z) -> (B, N, D) of the samples from `start` on.

    A view of channels-last memory, and its gradient arrives in that layout.
    """
    return features.movedim(1, -1).flatten(1, -2)[start:]


class _UnitSums(torch.autograd.Function):
    """sum_v w_c(v) f(v) / ||f(v)||: (M, D) rows and boolean (K, M) members -> (K, D), at least float32.

    With u = f / ||f|| the gradient of a member of class c is (g_c - u (u.g_c)) / ||f||. Written out, it takes
    a third of the passes over the rows, and keeps nothing of their size.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, members: Tensor) -> Tensor:
        wide = widen(rows)
        scale = inverse_norm(wide)
        ctx.save_for_backward(rows, members, scale)
        return torch.matmul(members * scale, wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, members, scale = ctx.saved_tensors
        wide, weights = widen(rows), members * scale
        along = (torch.matmul(gradient, wide.T) * weights).sum(dim=0) * scale.square()
        across = torch.matmul(weights.T.contiguous(), gradient).addcmul_(wide, along.unsqueeze(1), value=-1)
        return across.to(rows.dtype), None


def class_prototypes(rows: Tensor, members: Tensor) -> Tensor:
    """Normalised mean of the unit features of each class, with gradient.

    Args:
        rows: (M, D).
        members: (K, M) boolean, which voxels stand for which class.

    Returns:
        (K, D) unit vectors, at least float32; zeros for a class without members.
    """
    sums: Tensor = _UnitSums.apply(rows, members)  # type: ignore[no-untyped-call]
    return sums * inverse_norm(sums).unsqueeze(1)


def distances_to_own(rows: Tensor, prototypes: Tensor, label: Tensor) -> Tensor:
    """||f / ||f|| - mu_c|| of each voxel to the prototype of its class c, (M,), 0..2.

    From the inner product: ||f - mu||^2 = 2 - 2 f.mu for unit vectors. At distance 0 the gradient is 0.

    Args:
        rows: (M, D).
        prototypes: (K, D) unit vectors.
        label: (M,) int64.
    """
    wide = widen(rows)
    scale = inverse_norm(wide)
    cosines = (wide * prototypes.index_select(0, label)).sum(dim=1) * scale
    lengths = (scale.detach() > 0).to(cosines.dtype) + 1.0
    return safe_sqrt(lengths - 2.0 * cosines)


def pull(distances: Tensor, chosen: Tensor, present: Tensor) -> Tensor:
    """Sum over classes of the mean distance of the chosen voxels; classes without prototype or voxels add 0.

    Args:
        distances: (M,), see `distances_to_own`.
        chosen: (K, M) boolean, see `draw`.
        present: (K,) boolean, which classes have a prototype.
    """
    sums = (distances * chosen).sum(dim=1)
    return (sums / chosen.sum(dim=1).clamp_min(1) * present).sum()


def mean_pair_distance(prototypes: Tensor, present: Tensor) -> Tensor:
    """Mean distance between the prototypes of two different classes; 0 if fewer than two are present.

    Args:
        prototypes: (K, D).
        present: (K,) boolean.
    """
    squares = (prototypes.unsqueeze(1) - prototypes.unsqueeze(0)).square().sum(dim=2)
    pairs = (present.unsqueeze(1) & present.unsqueeze(0)).triu(diagonal=1)
    return masked_mean(safe_sqrt(squares), pairs)


def safe_sqrt(values: Tensor) -> Tensor:
    """Square root with gradient 0 instead of infinity at (and below) 0."""
    positive = values > TINY
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


class Drawn(NamedTuple):
    """Some of M voxels, in a list whose length does not depend on the values."""

    places: Tensor  # (m,) int64, positions in 0..M-1
    chosen: Tensor  # (K, m) boolean, whether the entry is a voxel drawn for the class


@torch.no_grad()
def draw(candidates: Tensor, fraction: float, generator: torch.Generator) -> Drawn:
    """Draw each candidate with probability `fraction`; at least one of each class that has candidates.

    Whole voxels are drawn, by the gaps between them, which are geometric; then the candidates among them are
    chosen. The list is 8 standard deviations longer than expected.

    Args:
        candidates: (K, M) boolean.
        fraction: above 0, at most 1.
        generator: on the same device.
    """
    classes, voxels = candidates.shape
    device = candidates.device
    if not voxels:
        return Drawn(torch.zeros(0, dtype=torch.int64, device=device), candidates)
    if fraction == 1:
        return Drawn(torch.arange(voxels, device=device), candidates)
    expected = fraction * voxels
    count = min(voxels, ceil(expected + 8 * sqrt(expected)) + 8)
    waits = torch.empty(count, device=device).exponential_(generator=generator)
    places = (waits / -log1p(-fraction)).long().add_(1).cumsum(dim=0) - 1
    inside = places < voxels
    places = places.clamp_max(voxels - 1)
    chosen = candidates.index_select(1, places) & inside

    ranks = candidates.cumsum(dim=1, dtype=torch.int32)
    lots = torch.rand(classes, 1, generator=generator, device=device)
    wanted = (lots * ranks[:, -1:]).to(torch.int32).clamp_max(ranks[:, -1:] - 1) + 1
    single = torch.searchsorted(ranks, wanted).clamp_max(voxels - 1)  # (K, 1): a candidate of each class
    needed = (ranks[:, -1] > 0) & ~chosen.any(dim=1)
    return Drawn(torch.cat([places, single.squeeze(1)]), torch.cat([chosen, needed.diag()], dim=1))


class PrototypeTerms(NamedTuple):
    """What `prototype_terms` returns."""

    pull: Tensor  # sum over classes of the mean distance of the drawn voxels to their fixed prototype
    apart: Tensor  # mean distance between live prototypes
    sizes: Tensor  # (K,) reliable voxels of each class


def prototype_terms(
    features: Tensor,
    label: Tensor,
    reliable: Tensor,
    *,
    num_classes: int,
    fraction: float,
    generator: torch.Generator,
    query_label: Tensor | None = None,
    counted: Tensor | None = None,
) -> PrototypeTerms:
    """Make prototypes of the reliable voxels and measure how far some of the others are from theirs.

    A class without reliable voxels has no prototype and adds nothing to either term.

    Args:
        features: (B, N, D), see `voxel_rows`.
        label: class of each voxel, (B, ...) int64, N values a sample.
        reliable: boolean, as `label`.
        num_classes: K, background included.
        fraction: of the voxels that are not reliable, see `draw`.
        generator: on the same device.
        query_label: class of the other voxels, where that is not `label`, as `label`.
        counted: boolean, as `label`: voxels that may be drawn; None: all that are not reliable.
    """
    rows, label, reliable = features.flatten(0, 1), label.flatten(), reliable.flatten()
    others = label if query_label is None else query_label.flatten()
    classes = torch.arange(num_classes, device=label.device).unsqueeze(1)
    members = (label == classes) & reliable
    sizes = members.sum(dim=1)
    prototypes = class_prototypes(rows, members)
    free = both(~reliable, None if counted is None else counted.flatten())
    drawn = draw((others == classes) & free, fraction, generator)
    distances = distances_to_own(
        rows.index_select(0, drawn.places), prototypes.detach(), others.index_select(0, drawn.places)
    )
    return PrototypeTerms(
        pull(distances, drawn.chosen, sizes > 0), mean_pair_distance(prototypes, sizes > 0), sizes
    )
