"""What a data set looks like; nothing is written into it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semivox.config import Config
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.splits import Split, stored_split
from semivox.io.volume import IGNORE, read_image, read_label
from semivox.preprocessing.fingerprint import Fingerprint, fingerprint
from semivox.progress import ProgressFactory, no_progress

SAMPLES = 6


class Sample(NamedTuple):
    """One scan to be drawn."""

    name: str
    image: NDArray[Any]  # one channel (X, Y, Z)
    label: NDArray[Any] | None  # class indices (X, Y, Z)
    spacing_mm: tuple[float, float, float]
    axes: str  # where the array's axes point to, see `Volume.axes`


@dataclass(frozen=True)
class Information:
    """A data set and what was measured of it."""

    dataset: Dataset
    split: Split
    measured: Fingerprint

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; volumes and foreground of labeled cases alone."""
        return {
            "dataset": self.dataset.name,
            "root": str(self.dataset.root),
            "channels": list(self.dataset.channels),
            "labels": dict(zip(self.dataset.class_names, self.dataset.class_values, strict=True)),
            "split": self.split.model_dump(mode="json"),
            "summary": self.measured.summary(),
            "foreground_intensity": self.measured.foreground,
            "cases": [asdict(case) for case in self.measured.cases],
        }


def info(
    data: Path, config: Config, *, workers: int = 2, progress: ProgressFactory = no_progress
) -> Information:
    """Measure shapes, voxel sizes and intensities of all training scans, and volumes of the classes.

    Labels are opened for the labeled cases of the split alone; test cases are not opened at all. Of `config`,
    `split` and `plan.trust_image_geometry` matter.
    """
    dataset = open_dataset(data)
    split = stored_split(data, dataset, config.split)
    trust = bool(config.plan.trust_image_geometry)
    with progress("fingerprint") as report:
        measured = fingerprint(dataset, split, report, workers=workers, trust_image_geometry=trust)
    return Information(dataset, split, measured)


def read_samples(found: Information, *, trust_image_geometry: bool = False) -> list[Sample]:
    """Read some scans again to draw them, evenly spread over the cases, with the labels of labeled ones."""
    dataset, cases, samples = found.dataset, found.measured.cases, []
    for place in np.linspace(0, len(cases) - 1, min(len(cases), SAMPLES)):
        case = dataset.case(cases[round(place)].name)
        image = read_image(case.images, dataset.channels, trust_image_geometry=trust_image_geometry)
        label = None
        if case.label is not None and case.name in found.split.labeled:
            values, ignore, trust = dataset.class_values, dataset.ignore_value, trust_image_geometry
            label = read_label(case.label, values, image, ignore, trust_image_geometry=trust).array
            label[label == IGNORE] = 0
        samples.append(Sample(case.name, image.array[0], label, image.spacing_mm, image.axes))
    return samples
