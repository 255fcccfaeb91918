"""Small data sets that tests of several rooms write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from semivox.datasets.dataset import Dataset, open_dataset


def save(path: Path, array: Any, affine: np.ndarray | None = None) -> Path:
    """Write an array as NIfTI, an image as it is, bytes too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(array, bytes):
        path.write_bytes(array)
    else:
        given = isinstance(array, nib.Nifti1Image)
        nib.save(array if given else nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


class Raw:
    """A folder in nnU-Net raw form, filled case by case."""

    def __init__(
        self, root: Path, labels: Mapping[str, int], channels: Sequence[str] = ("MR",), affine: Any = None
    ) -> None:
        self.root, self.channels, self.affine = root, tuple(channels), affine
        self.describe(labels)

    def describe(self, labels: Mapping[str, int]) -> None:
        """Write `dataset.json`; the labels are those of the foreground."""
        names = {str(index): name for index, name in enumerate(self.channels)}
        content = {"channel_names": names, "labels": {"background": 0, **labels}, "file_ending": ".nii.gz"}
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "dataset.json").write_text(json.dumps(content))

    def image(self, name: str, array: Any, affine: Any = None, *, pool: str = "Tr", index: int = 0) -> Path:
        path = self.root / f"images{pool}" / f"{name}_{index:04}.nii.gz"
        return save(path, array, self.affine if affine is None else affine)

    def label(self, name: str, array: Any, affine: Any = None, *, pool: str = "Tr") -> Path:
        path = self.root / f"labels{pool}" / f"{name}.nii.gz"
        return save(path, array, self.affine if affine is None else affine)

    def add(self, name: str, *channels: Any, label: Any = None, affine: Any = None, pool: str = "Tr") -> None:
        """Write a case."""
        for index, array in enumerate(channels):
            self.image(name, array, affine, pool=pool, index=index)
        if label is not None:
            self.label(name, label, affine, pool=pool)

    def open(self) -> Dataset:
        return open_dataset(self.root)
