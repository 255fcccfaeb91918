"""Class prototypes in feature space, and the voxels that are compared with them.

Features come as rows (M, D), one a voxel, see `voxel_rows`, or as maps (B, D, N), N the voxels of a sample.
"""

from __future__ import annotations

from math import ceil, log1p, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from semivox.losses.prediction import widen
from semivox.losses.supervised import both, masked_mean, onehot

TINY = 1e-12  # a vector with a smaller square has no direction


def inverse_norm(features: Tensor, dim: int = 1) -> Tensor:
    """Compute 1 / ||f|| over `dim`; 0 for a vector without direction (||f||^2 <= 1e-12)."""
    squares = features.square().sum(dim=dim)
    positive = squares > TINY
    return torch.where(positive, torch.where(positive, squares, 1.0).rsqrt(), 0.0)


def safe_sqrt(values: Tensor) -> Tensor:
    """Square root with gradient 0 instead of infinity at (and below) 0."""
    positive = values > TINY
    return torch.where(positive, torch.where(positive, values, 1.0).sqrt(), 0.0)


def voxel_rows(features: Tensor, start: int = 0) -> Tensor:
    """Reshape (B, D, X, Y, Z) to (B, N, D), the samples from `start` on; a view of channels-last memory."""
    return features.movedim(1, -1).flatten(1, -2)[start:]


def class_prototypes(rows: Tensor, members: Tensor) -> Tensor:
    """Return the normalised mean of the unit features of each class, with gradient.

    Rows (M, D) and members (K, M) boolean, which of them stand for which class -> (K, D), at least float32;
    zeros for a class without members.
    """
    wide = widen(rows)
    sums = torch.matmul(members * inverse_norm(wide), wide)
    return sums * inverse_norm(sums).unsqueeze(1)


def distances_to_own(rows: Tensor, prototypes: Tensor, label: Tensor) -> Tensor:
    """Compute ||f / ||f|| - mu_c|| of each voxel to the prototype of its class c, (M,), 0..2.

    From the inner product: ||f - mu||^2 = 2 - 2 f.mu for unit vectors. At distance 0 the gradient is 0. Rows
    are (M, D), prototypes (K, D) unit vectors, labels (M,).
    """
    wide = widen(rows)
    scale = inverse_norm(wide)
    cosine = (wide * prototypes.index_select(0, label)).sum(dim=1) * scale
    lengths = (scale.detach() > 0).to(cosine.dtype) + 1.0
    return safe_sqrt(lengths - 2.0 * cosine)


def mean_pair_distance(prototypes: Tensor, present: Tensor) -> Tensor:
    """Average the distance between prototypes (K, D) of two `present` (K,) classes; 0 without a pair."""
    squares = (prototypes.unsqueeze(1) - prototypes.unsqueeze(0)).square().sum(dim=2)
    pairs = (present.unsqueeze(1) & present.unsqueeze(0)).triu(diagonal=1)
    return masked_mean(safe_sqrt(squares), pairs)


class Drawn(NamedTuple):
    """Some of M voxels, in a list whose length does not depend on the values."""

    places: Tensor  # (m,) int64, positions in 0..M-1
    chosen: Tensor  # (K, m) boolean, whether the entry is a voxel drawn for the class


@torch.no_grad()
def draw(candidates: Tensor, fraction: float, generator: torch.Generator) -> Drawn:
    """Draw each candidate with probability `fraction`; at least one of each class that has candidates.

    Whole voxels are drawn, by the gaps between them, which are geometric; then the candidates among them are
    chosen. The list is 8 standard deviations longer than expected. Candidates are (K, M) boolean.
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
    """The two terms of a prototype loss, and the size of each class."""

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
    valid: Tensor | None = None,
) -> PrototypeTerms:
    """Make prototypes of the reliable voxels and measure how far some of the others are from theirs.

    A class without reliable voxels has no prototype and adds nothing to either term.

    Args:
        features: (B, N, D), see `voxel_rows`.
        label: class of each voxel, (B, ...) int64, N values a sample.
        reliable: boolean, as `label`.
        num_classes: K.
        fraction: of the voxels that are not reliable, see `draw`.
        generator: on the same device.
        query_label: class of the other voxels, where that is not `label`.
        valid: boolean, as `label`: voxels that may be drawn.
    """
    rows, label, reliable = features.flatten(0, 1), label.flatten(), reliable.flatten()
    others = label if query_label is None else query_label.flatten()
    classes = torch.arange(num_classes, device=label.device).unsqueeze(1)
    members = (label == classes) & reliable
    sizes = members.sum(dim=1)
    prototypes = class_prototypes(rows, members)
    free = both(~reliable, None if valid is None else valid.flatten())
    places, chosen = draw((others == classes) & free, fraction, generator)
    own = rows.index_select(0, places), prototypes.detach(), others.index_select(0, places)
    sums = (distances_to_own(*own) * chosen).sum(dim=1)
    pull = (sums / chosen.sum(dim=1).clamp_min(1) * (sizes > 0)).sum()
    return PrototypeTerms(pull, mean_pair_distance(prototypes, sizes > 0), sizes)


def weighted_prototypes(features: Tensor, weights: Tensor) -> Tensor:
    """Average the features of each sample and class: sum_v w_c(v) f(v) / (sum_v w_c(v) + 1e-5).

    Features (B, D, N), weights (B, K, N) >= 0 -> (B, K, D); zeros for a class without weight.

    Source: Xu et al., "Cyclic prototype consistency learning", JBHI 2022.
    """
    sums = torch.matmul(weights, features.transpose(1, 2))
    return sums / (weights.sum(dim=2, keepdim=True) + 1e-5)


def cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    """Compute the cosine of each voxel's feature (B, D, N) with each prototype (B, K, D) of its sample.

    (B, K, N), -1..1; 0 where either has no direction.
    """
    directions = prototypes * inverse_norm(prototypes, dim=2).unsqueeze(2)
    return torch.matmul(directions, features) * inverse_norm(features).unsqueeze(1)


class Rows(NamedTuple):
    """Some voxels of each class."""

    voxel: Tensor  # (K, R) int64, into the flattened label
    chosen: Tensor  # (K, R) boolean; False: a repetition, or a voxel of another class where there is none


@torch.no_grad()
def draw_rows(
    label: Tensor, num_classes: int, rows: int, generator: torch.Generator, valid: Tensor | None = None
) -> Rows:
    """Draw up to `rows` voxels of each class at random, without repetition among the chosen ones.

    A class with fewer voxels has them all, repeated to fill its row: batch normalisation over the rows then
    sees no other class. R is `rows`, but at most the number of elements of the label, which may have any
    shape; `valid` are the voxels that have a class.
    """
    flat = label.flatten()
    members = onehot(flat.unsqueeze(0), num_classes).squeeze(0)
    members = both(members, None if valid is None else valid.flatten())
    lots = torch.rand(flat.shape, generator=generator, device=flat.device)
    voxel = (lots + ~members).topk(min(rows, flat.numel()), dim=1, largest=False).indices  # own class first
    place = torch.arange(voxel.shape[1], device=flat.device)
    sizes = members.sum(dim=1, keepdim=True)
    return Rows(voxel.gather(1, place % sizes.clamp(1, voxel.shape[1])), place < sizes)


def take_rows(features: Tensor, rows: Rows) -> Tensor:
    """Take the features (K, R, D) of the drawn voxels from (B, D, X, Y, Z)."""
    flat = features.flatten(2)
    return flat[rows.voxel // flat.shape[2], :, rows.voxel % flat.shape[2]]


@torch.no_grad()
def best_rows(rows: Tensor, score: Tensor, valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keep the valid rows of highest score of each class, at most `count` = M.

    Rows (K, R, D), scores and valid (K, R) -> (K, M, D), zeros where a class has fewer valid rows, and (K, M)
    boolean, where it has one.
    """
    best = torch.where(valid, score, -torch.inf).topk(min(count, rows.shape[1]), dim=1)
    filled = pad(best.values > -torch.inf, (0, count - best.values.shape[1]))
    found = rows.gather(1, best.indices.unsqueeze(2).expand(-1, -1, rows.shape[2]))
    found = pad(found, (0, 0, 0, count - found.shape[1]))
    return torch.where(filled.unsqueeze(2), found, 0.0), filled


def weighted_cosine_distance(rows: Tensor, weights: Tensor, others: Tensor, other_weights: Tensor) -> Tensor:
    """Compute sum_ij a_i b_j (1 - cos(x_i, y_j)) of each class, a and b the weights divided by their sums.

    x (K, M, D), y (K, N, D), weights (K, M) and (K, N) >= 0 -> (K,), 0..2. If all weights of a class are 0
    its result means nothing.
    """
    means = [
        (normalize(x, dim=2) * (w / w.sum(dim=1, keepdim=True).clamp_min(1e-12)).unsqueeze(2)).sum(dim=1)
        for x, w in ((rows, weights), (others, other_weights))
    ]
    return 1.0 - (means[0] * means[1]).sum(dim=1)
