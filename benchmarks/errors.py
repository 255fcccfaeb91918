"""Tell where the errors of segmentations lie: near the true surface or far from it, missed or added.

Each figure is a volume as a percentage of the true one, the mean over the cases. Only the first foreground
class is looked at. With several folders of predictions the rows can be compared: same cases, same references.

    python benchmarks/errors.py DATA PREDICTIONS [PREDICTIONS ...] [--near 2.5]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt

import semivox
from semivox.io.volume import read_image, read_label
from timing import parser_of


def errors(
    predicted: np.ndarray, true: np.ndarray, spacing_mm: tuple[float, ...], near_mm: float
) -> dict[str, float]:
    """Return the four volumes of one case in percent of the true volume; both masks are boolean."""
    depth = np.where(true, *(distance_transform_edt(mask, spacing_mm) for mask in (true, ~true)))
    found = {}
    for name, wrong in (("missed", true & ~predicted), ("added", predicted & ~true)):
        found[f"{name}, near"] = 100 * (wrong & (depth <= near_mm)).sum() / true.sum()
        found[f"{name}, far"] = 100 * (wrong & (depth > near_mm)).sum() / true.sum()
    return found


def main() -> None:
    """Print a row for each folder."""
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="with one CASE.nii.gz for each case to compare")
    parser.add_argument("--near", type=float, default=2.5, help="mm from the true surface")
    args = parser.parse_args()
    dataset, rows = semivox.open_dataset(args.data), {}
    cases = [case for pool in ("train", "test") for case in dataset.pool(pool) if case.label is not None]
    for folder in args.folders:
        scored = []
        for case in cases:
            if not (path := folder / f"{case.name}.nii.gz").is_file():
                continue
            image = read_image([path])
            true = read_label(case.label, dataset.class_values, image).array == 1
            predicted = image.array[0] == dataset.class_values[1]
            scored.append(errors(predicted, true, image.spacing_mm, args.near))
        rows[str(folder)] = {"cases": len(scored), **pd.DataFrame(scored).mean()}
    table = pd.DataFrame(rows).T
    table["all"] = table.drop(columns="cases").sum(axis=1)
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
