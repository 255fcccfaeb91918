"""A data set of phantoms on disk, in nnU-Net's raw layout."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from semivox.datasets.phantom import SHAPE, Triple, phantom
from semivox.errors import UserError
from semivox.files import read_json, replacing, write_json


def make_phantoms(
    out: Path,
    *,
    train: int = 40,
    test: int = 20,
    classes: int = 1,
    shape: Triple = SHAPE,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write scans, all with labels, as an nnU-Net raw data set; the same seed gives the same bytes.

    Cases are `phantom_000`, `phantom_001`, ...; the test cases follow the train cases. Files that exist are
    kept, so an interrupted call goes on where it stopped.

    Args:
        out: folder to write to; made if needed.
        train: cases in imagesTr and labelsTr.
        test: cases in imagesTs and labelsTs.
        classes: foreground classes: 1 (atrium) or 2 (body, veins).
        shape: of the isotropic grid, see `phantom`.
        seed: of the data set.
        progress: called with (cases done, cases, name of the case) after every case.

    Returns:
        The folder.

    Raises:
        UserError: the folder already has another data set in it.
    """
    settings = {"train": train, "test": test, "classes": classes, "shape": list(shape), "seed": seed}
    _claim(out, settings)
    for index in range(train + test):
        name = f"phantom_{index:03d}"
        part = "Tr" if index < train else "Ts"
        image_path = out / f"images{part}" / f"{name}_0000.nii.gz"
        label_path = out / f"labels{part}" / f"{name}.nii.gz"
        if not (image_path.is_file() and label_path.is_file()):
            image, label, affine = phantom(seed, index, classes=classes, shape=shape)
            _write(image_path, image.astype(np.int16), affine)
            _write(label_path, label, affine)
        if progress is not None:
            progress(index + 1, train + test, name)
    return out


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Write dataset.json, or check that the one that is there has the same settings."""
    path = out / "dataset.json"
    if not path.exists():
        write_json(path, _description(settings))
        return
    found = read_json(path)
    found = found.get("phantoms") if isinstance(found, dict) else None
    if found != settings:
        raise UserError(
            "The folder already holds another data set",
            path=path,
            found="no phantoms" if found is None else f"phantoms made with {found}",
            expected=f"phantoms made with {settings}, or an empty folder",
            do="choose another folder, or remove this one",
        )


def _description(settings: dict[str, Any]) -> dict[str, Any]:
    names = ["background", "atrium"] if settings["classes"] == 1 else ["background", "body", "veins"]
    return {
        "name": "phantoms",
        "description": "made-up left atria with pulmonary veins",
        "channel_names": {"0": "MR"},
        "labels": {name: value for value, name in enumerate(names)},
        "numTraining": settings["train"],
        "file_ending": ".nii.gz",
        "phantoms": settings,
    }


def _write(path: Path, array: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> None:
    """Write NIfTI; the gzip header has neither a time nor a name in it, so the bytes repeat."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        packed.write(image.to_bytes())
