"""Quality of pseudo-labels against a label that training does not see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import isfinite

import torch
from torch import Tensor

from semivox.losses.prediction import most_probable
from semivox.losses.supervised import both
from semivox.methods.base import PseudoLabel

BINS = 15
Row = tuple[str, str, str, float]
"""What was measured, of which label, pair or loss, of which class, bin or network, and the number."""


class PseudoQuality:
    """Counts over batches of patches; a quotient over nothing is left out of the findings."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._classes = tuple(class_names)
        self._counts: dict[tuple[str, str], Tensor] = {}

    def add(self, labels: Mapping[str, PseudoLabel], truth: Tensor) -> None:
        """Count one batch; labels with probabilities are also checked for calibration and compared in pairs.

        The truth is (B, X, Y, Z); a voxel with another number than a class is left out.
        """
        count = len(self._classes)
        known = truth < count
        truth = truth * known
        for name, found in labels.items():
            self._add("label", name, confusion(truth, found.label, count, both(known, found.valid)))
            if found.valid is not None:
                self._add("unmasked", name, confusion(truth, found.label, count, known))
            if found.probs is not None:
                foreground = known & ((truth > 0) | (found.label > 0))
                self._add("all", name, reliability_bins(found.probs, truth, known))
                self._add("foreground", name, reliability_bins(found.probs, truth, foreground))
        members = [(name, found.label) for name, found in labels.items() if found.probs is not None]
        for (name_a, label_a), (name_b, label_b) in combinations(members, 2):
            self._add("pair", f"{name_a}-{name_b}", confusion(label_a, label_b, count, known))

    def _add(self, kind: str, name: str, counts: Tensor) -> None:
        before = self._counts.get((kind, name))
        self._counts[kind, name] = counts if before is None else before + counts

    def findings(self) -> Iterator[Row]:
        """Return everything that was counted.

        Of each label, on its valid voxels: `dice`, `precision`, `recall`, `volume` (labeled / true volume) of
        each foreground class. Of each label with a mask: `share` (of all voxels), `purity` (share of correct
        ones) and `coverage` (share of the true class's voxels that are in it), each of all and by class.
        Of each network: `ece`, of all voxels and of those that it or the truth calls foreground, and
        for the bins `bin_share`, `bin_confidence`, `bin_accuracy`. Of each pair of networks: `agreement`
        (Dice of their labels) of each foreground class.
        """
        for (kind, name), counts in self._counts.items():
            if kind == "unmasked":
                found = self._mask(self._counts["label", name], counts)
            elif kind in ("label", "pair"):
                found = self._overlaps(counts, kind)
            else:
                found = _calibration(counts, kind)
            yield from ((measure, name, part, value) for measure, part, value in found if isfinite(value))

    def _overlaps(self, matrix: Tensor, kind: str) -> Iterator[tuple[str, str, float]]:
        hit, true, labeled = _hits(matrix)
        dice = 2 * hit / (true + labeled)
        measures = {"precision": hit / labeled, "recall": hit / true, "volume": labeled / true}
        measures = {"dice": dice, **measures} if kind == "label" else {"agreement": dice}
        for index, part in enumerate(self._classes[1:], start=1):
            yield from ((measure, part, float(values[index])) for measure, values in measures.items())

    def _mask(self, matrix: Tensor, everywhere: Tensor) -> Iterator[tuple[str, str, float]]:
        (hit, true, labeled), everywhere = _hits(matrix), everywhere.double()
        voxels, coverage = everywhere.sum(), true / everywhere.sum(dim=1)
        yield "share", "all", float(true.sum() / voxels)
        yield "purity", "all", float(hit.sum() / true.sum())
        measures = {"share": labeled / voxels, "purity": hit / labeled, "coverage": coverage}
        for index, part in enumerate(self._classes):
            yield from ((measure, part, float(values[index])) for measure, values in measures.items())


def _calibration(counts: Tensor, part: str) -> Iterator[tuple[str, str, float]]:
    yield "ece", part, calibration_error(counts)
    if part == "all":
        total = float(counts[0].sum())
        for index, (number, confidence, correct) in enumerate(counts.T.tolist(), start=1):
            if number:
                place = f"{index:02d}/{BINS}"
                yield "bin_share", place, number / total
                yield "bin_confidence", place, confidence / number
                yield "bin_accuracy", place, correct / number


@torch.no_grad()
def confusion(truth: Tensor, label: Tensor, num_classes: int, valid: Tensor) -> Tensor:
    """Count voxels by true class (rows) and assigned class (columns): (K, K) int64 on the CPU."""
    pairs = (truth * num_classes + label)[valid].cpu()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


@torch.no_grad()
def reliability_bins(probs: Tensor, truth: Tensor, valid: Tensor, bins: int = BINS) -> Tensor:
    """Sort voxels by confidence, the largest probability, into bins of equal width over (0, 1].

    (B, K, X, Y, Z), (B, X, Y, Z) twice -> (3, bins) float64 on the CPU: number of the valid voxels, sum of
    their confidences, number of correct ones.
    """
    confidence, label = most_probable(probs)
    confidence, correct = confidence[valid].cpu(), (label == truth)[valid].cpu()
    place = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    rows = (torch.ones_like(confidence), confidence, correct)
    return torch.stack([torch.bincount(place, row.double(), minlength=bins) for row in rows])


def calibration_error(counts: Tensor) -> float:
    """Compute the expected calibration error, sum_b n_b / n |accuracy_b - confidence_b|, 0..1, of the bins.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3.
    """
    number, confidence, correct = counts
    return float((correct - confidence).abs().sum() / number.sum())


def _hits(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the voxels of each class in both, by the rows, by the columns of a confusion matrix."""
    counts = matrix.double()
    return counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
