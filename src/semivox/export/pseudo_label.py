"""Predictions as labels: a data set in nnU-Net raw form in which every training case has one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semivox.config import PredictConfig
from semivox.datasets.dataset import Case, Dataset, open_dataset
from semivox.errors import UserError
from semivox.files import read_json, replacing, write_json
from semivox.inference.model import LoadedModel
from semivox.inference.predict import predict_files
from semivox.inference.sources import split_of
from semivox.io.volume import IGNORE, read_header, read_image, read_label, write_label, write_map
from semivox.manifest import Manifest
from semivox.progress import ProgressFactory


def pseudo_label(
    run: Path,
    loaded: LoadedModel,
    data: Path,
    folder: Path,
    config: PredictConfig,
    progress: ProgressFactory,
    *,
    overwrite: bool = False,
) -> Dataset:
    """Write a data set for nnU-Net; see `semivox.pseudo_label`.

    Which labels are real is told by the split stored with the model (labeled and validation cases); the
    label file of a case that was unlabeled there is not opened. Labels are numbered 0, 1, 2, ... as nnU-Net
    demands. `dataset.json` lists the cases of both kinds under `real_labels` and `pseudo_labels`; a
    `splits_final.json` validates on the validation cases, if there are any. Test cases are not part of it.
    The predictions as `predict` writes them stay in `predictions/`, so that a second call resumes.
    """
    dataset = open_dataset(data)
    split = split_of(run, loaded.plan, dataset)
    _check(dataset, folder)
    if not split.unlabeled:
        what, found = "There is no unlabeled case to predict", f"{len(split.labeled)} labeled cases"
        do = "for other scans use semivox predict without --as-dataset"
        raise UserError(what, found, "at least one case without a label", do, dataset.root)
    pseudo = [dataset.case(name) for name in split.unlabeled]
    real = [dataset.case(name) for name in (*split.labeled, *split.val)]
    predicted, scans = folder / "predictions", {case.name: case.images for case in pseudo}
    with progress("predict") as report:
        predict_files(loaded, scans, predicted, config, overwrite=overwrite, progress=report)
    for case in (*pseudo, *real):
        label = predicted / f"{case.name}.nii.gz" if case.name in scans else case.label
        assert label is not None
        _write_case(case, label, dataset, folder, loaded.plan.trust_image_geometry)
    about = _description(folder, dataset, real, pseudo)
    write_json(folder / "dataset.json", about | {"model": loaded.digest})
    if split.val:
        train = [*split.labeled, *split.unlabeled]
        write_json(folder / "splits_final.json", [{"train": train, "val": list(split.val)}])
    Manifest(folder).report("predict", model=loaded.digest, source=str(data), pseudo=len(pseudo))
    return open_dataset(folder)


def _description(
    folder: Path, dataset: Dataset, real: Sequence[Case], pseudo: Sequence[Case]
) -> dict[str, Any]:
    labels = {name: index for index, name in enumerate(dataset.class_names)}
    if dataset.ignore_value is not None:
        labels["ignore"] = len(labels)
    return {
        "name": folder.resolve().name,
        "description": f"{dataset.name} with the predictions of a semivox model for unlabeled cases",
        "channel_names": {str(index): name for index, name in enumerate(dataset.channels)},
        "labels": labels,
        "numTraining": len(real) + len(pseudo),
        "file_ending": ".nii.gz",
        "real_labels": [case.name for case in real],
        "pseudo_labels": [case.name for case in pseudo],
    }


def _check(dataset: Dataset, out: Path) -> None:
    if out.resolve() == dataset.root.resolve():
        raise UserError("The output folder is the data set itself", path=out, do="choose another --output")
    about = out / "dataset.json"
    if about.exists() and "pseudo_labels" not in read_json(about):
        expected = "an empty folder, or one that this command made"
        raise UserError("The output folder holds another data set", None, expected, "choose another -o", out)


def _write_case(case: Case, label_file: Path, dataset: Dataset, out: Path, trust: bool) -> None:
    """Write image and label of a case; files that are named and stored as needed are copied as they are."""
    images = [out / "imagesTr" / f"{case.name}_{index:04d}.nii.gz" for index in range(len(dataset.channels))]
    image = read_image(case.images, dataset.channels, trust_image_geometry=trust)
    ignore = dataset.ignore_value
    label = read_label(label_file, dataset.class_values, image, ignore, trust_image_geometry=trust).array
    label = np.where(label == IGNORE, np.uint8(dataset.num_classes), label)
    values = list(range(dataset.num_classes + (ignore is not None)))
    same = len(case.images) == len(images) and all(file.name.endswith(".nii.gz") for file in case.images)
    copied = same and not trust
    header = read_header(case.images[0]) if copied else None
    write_label(out / "labelsTr" / f"{case.name}.nii.gz", label, values, image.affine, header)
    for index, path in enumerate(images):
        if copied:
            with replacing(path) as temporary:
                shutil.copyfile(case.images[index], temporary)
        else:
            write_map(path, image.array[index], image.affine)
