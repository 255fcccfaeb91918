"""Scoring a case: semivox's full set beside medpy, time, agreement and memory.

    python benchmarks/metrics.py LABEL.nii.gz          # a real reference, e.g. of the left atrium

The prediction is made from the reference: a boundary that is off by smooth noise, as a network's is, and an
island. Memory is the peak above the two label arrays, as traced and as the growth of a fresh process. Prints
Markdown.
"""

from __future__ import annotations

import tracemalloc
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from peers.metrics import full_scores, published_scores
from semivox.evaluation.metrics import case_metrics
from semivox.evaluation.surface import union_box
from timing import Elsewhere, head, paired, parser_of, peak_mb, row

Array = np.ndarray[Any, Any]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("label", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for name, prediction, reference, spacing in cases(arguments.label):
        compare(name, prediction, reference, spacing, arguments.repeats)


def compare(name: str, prediction: Array, reference: Array, spacing: Any, repeats: int) -> None:
    def ours() -> Any:
        return case_metrics(prediction, reference, 2, spacing)

    peers = {
        "medpy, published four": lambda: published_scores(prediction, reference, 2),
        "medpy, all that it has": lambda: full_scores(prediction, reference, 2, spacing),
    }
    print(f"\n{name}\n")
    head("peer", "peer CPU", "ours CPU", "CPU ratio", "wall ratio", "largest difference")
    for peer, run in peers.items():
        pair = paired(run, ours, repeats)
        (own,), (theirs,) = ours(), run()
        off = max(abs(own[key] - value) for key, value in theirs.items())
        times = [f"{1e3 * side.cpu:.0f} ms" for side in pair[:2]]
        row(peer, *times, f"{pair.ratio.cpu:.1f}", f"{pair.ratio.wall:.1f}", f"{off:.1e}")
    box = union_box(prediction > 0, reference > 0)
    assert box is not None
    voxels = prod(side.stop - side.start for side in box)
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with Elsewhere(Fresh, prediction, reference, spacing, threads=1) as fresh:
        grown = fresh.call("growth")[0]
    print(f"\n{voxels} voxels in the box: {peak / voxels:.1f} bytes a voxel (traced),", end=" ")
    print(f"{grown / voxels:.1f} by the growth of a fresh process")


class Fresh:
    """Score in a process whose memory has not been used before."""

    def __init__(self, *case: Any) -> None:
        self.prediction, self.reference, self.spacing = case
        small = np.zeros((9, 9, 9), np.uint8)
        small[3:6, 3:6, 3:6] = 1
        case_metrics(small, small, 2, (1, 1, 1))

    def growth(self) -> float:
        """Bytes by which the peak grows."""
        before = peak_mb()
        case_metrics(self.prediction, self.reference, 2, self.spacing)
        return 2**20 * (peak_mb() - before)


def cases(path: Path) -> list[tuple[str, Array, Array, tuple[float, ...]]]:
    """(name, prediction, reference, spacing in mm) at native resolution, and with a fourth of the slices."""
    image = nib.load(path)
    reference = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    inside = ndimage.distance_transform_edt(reference) - ndimage.distance_transform_edt(reference == 0)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(reference.shape), 5.0)
    prediction = (inside + 2.5 * noise / noise.std() > 0.5).astype(np.uint8)
    prediction[3:9, 3:9, 3:9] = 1
    spacing = tuple(float(step) for step in image.header.get_zooms()[:3])
    thick = (*spacing[:2], 4 * spacing[2])
    return [
        ("native", prediction, reference, spacing),
        ("a fourth of the slices", prediction[..., ::4].copy(), reference[..., ::4].copy(), thick),
    ]


if __name__ == "__main__":
    main()
