"""Voxels as rows of features, and their cosine distance to remembered ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from semivox.losses.supervised import onehot


class Rows(NamedTuple):
    """Some voxels of each class."""

    voxel: Tensor  # (K, R) int64, into the flattened label
    chosen: Tensor  # (K, R) boolean; False: a repetition, or a voxel of another class where there is none


@torch.no_grad()
def draw_rows(
    label: Tensor, num_classes: int, rows: int, generator: torch.Generator, counted: Tensor | None = None
) -> Rows:
    """Draw up to `rows` voxels of each class at random, without repetition among the chosen ones.

    A class with fewer voxels has them all, repeated to fill its row: batch normalisation over the rows then
    sees no other class.

    Args:
        label: class indices of any shape, N elements; N >= 1.
        num_classes: K.
        rows: R is this, but at most N.
        generator: on the label's device.
        counted: boolean, of the label's shape, the voxels that have a class; None: all.
    """
    flat = label.flatten()
    members = onehot(flat.unsqueeze(0), num_classes).squeeze(0)
    if counted is not None:
        members = members & counted.flatten()
    lots = torch.rand(flat.shape, generator=generator, device=flat.device)
    voxel = (lots + ~members).topk(min(rows, flat.numel()), dim=1, largest=False).indices  # own class first
    place = torch.arange(voxel.shape[1], device=flat.device)
    sizes = members.sum(dim=1, keepdim=True)
    return Rows(voxel.gather(1, place % sizes.clamp(1, voxel.shape[1])), place < sizes)


def take_rows(features: Tensor, rows: Rows) -> Tensor:
    """Features (K, R, D) of the drawn voxels, from (B, D, X, Y, Z)."""
    flat = features.flatten(2)
    size = flat.shape[2]
    return flat[rows.voxel // size, :, rows.voxel % size]


@torch.no_grad()
def best_rows(rows: Tensor, score: Tensor, valid: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keep the valid rows of highest score of each class, at most `count`.

    Args:
        rows: (K, R, D).
        score: (K, R).
        valid: (K, R) boolean.
        count: M.

    Returns:
        (K, M, D), zeros where a class has fewer valid rows, and (K, M) boolean, where it has one.
    """
    best = torch.where(valid, score, -torch.inf).topk(min(count, rows.shape[1]), dim=1)
    filled = pad(best.values > -torch.inf, (0, count - best.values.shape[1]))
    found = rows.gather(1, best.indices.unsqueeze(2).expand(-1, -1, rows.shape[2]))
    found = pad(found, (0, 0, 0, count - found.shape[1]))
    return torch.where(filled.unsqueeze(2), found, 0.0), filled


def weighted_cosine_distance(rows: Tensor, weights: Tensor, others: Tensor, other_weights: Tensor) -> Tensor:
    """sum_ij a_i b_j (1 - cos(x_i, y_j)) of each class, with a and b the weights divided by their sums.

    Args:
        rows: x, (K, M, D).
        weights: (K, M) >= 0; if all of a class are 0 its result means nothing.
        others: y, (K, N, D).
        other_weights: (K, N), likewise.

    Returns:
        (K,), 0..2.
    """
    means = [
        (normalize(x, dim=2) * (w / w.sum(dim=1, keepdim=True).clamp_min(1e-12)).unsqueeze(2)).sum(dim=1)
        for x, w in ((rows, weights), (others, other_weights))
    ]
    return 1.0 - (means[0] * means[1]).sum(dim=1)
