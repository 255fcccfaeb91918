"""Scoring a case: semivox's full set beside medpy, time, agreement and memory.

    python benchmarks/metrics.py LABEL.nii.gz          # a real reference, e.g. of the left atrium

The prediction is made from the reference: a boundary that is off by smooth noise, as a network's is, and an
island. Memory is the peak above the two label arrays, as traced and as the growth of a fresh process. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
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
from timing import paired

Array = np.ndarray[Any, Any]

FRESH = """
import re, sys
from pathlib import Path
import numpy as np
from semivox.evaluation.metrics import case_metrics
small = np.zeros((9, 9, 9), np.uint8)
small[3:6, 3:6, 3:6] = 1
case_metrics(small, small, 2, (1, 1, 1))
prediction, reference = np.load(sys.argv[1])
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
case_metrics(prediction, reference, 2, [float(step) for step in sys.argv[2:]])
print(1024 * (peak() - before))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
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
    print(f"\n{name}\n\n| peer | peer CPU | ours CPU | CPU ratio | wall ratio | largest difference |")
    print("|---|---|---|---|---|---|")
    for peer, run in peers.items():
        pair = paired(run, ours, repeats)
        (row,), (theirs,) = ours(), run()
        off = max(abs(row[key] - value) for key, value in theirs.items())
        times = f"{1e3 * pair.a.cpu:.0f} ms | {1e3 * pair.b.cpu:.0f} ms"
        print(f"| {peer} | {times} | {pair.ratio.cpu:.1f} | {pair.ratio.wall:.1f} | {off:.1e} |", flush=True)
    box = union_box(prediction > 0, reference > 0)
    assert box is not None
    voxels = prod(side.stop - side.start for side in box)
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "masks.npy"
        np.save(file, np.stack([prediction, reference]))
        grown = subprocess.check_output([sys.executable, "-c", FRESH, str(file), *map(str, spacing)])
    print(f"\n{voxels} voxels in the box: {peak / voxels:.1f} bytes a voxel (traced),", end=" ")
    print(f"{int(grown) / voxels:.1f} by the growth of a fresh process")


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
