"""`evaluate`: predictions against reference segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.regions import read_regions
from semivox.datasets.splits import load_split
from semivox.errors import UserError
from semivox.evaluation.evaluate import evaluate_folder
from semivox.files import read_json
from semivox.progress import ProgressFactory, no_progress
from semivox.run import write_manifest

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    predictions: Path | str,
    *,
    data: Path | str | None = None,
    references: Path | str | None = None,
    cases: Literal["test", "val"] = "test",
    split_file: Path | None = None,
    out: Path | str | None = None,
    largest_component: bool = True,
    profile: Literal["semivox", "published"] = "semivox",
    nsd_tolerance_mm: float = 1.0,
    trust_image_geometry: bool = False,
    regions: Mapping[str, Sequence[int]] | None = None,
    workers: int = 2,
    progress: ProgressFactory = no_progress,
) -> pd.DataFrame:
    """Score a folder of predictions; writes `metrics.csv` and `summary.json`.

    Args:
        predictions: folder with `CASE.nii.gz`.
        data: the data set with the reference labels, of its test cases or of a split's validation cases.
        references: instead of `data`, a folder with `CASE.nii.gz` reference labels.
        cases: which cases of `data`.
        split_file: the split that names the validation cases; default: the workspace's.
        out: where the results go; default: the predictions' folder.
        largest_component: also score the largest connected component of each class.
        profile: `published` scores as older papers do (voxel units, failures count as zero distance).
        nsd_tolerance_mm: tolerance of the normalised surface distance.
        trust_image_geometry: compare voxel by voxel although the affines differ.
        regions: values on disk of unions of classes that are scored too; default: those of `data`.
        workers: processes; 0 works in this process.

    Returns:
        One row a case and class.
    """
    folder = Path(predictions)
    ignore = None
    if data is not None:
        dataset = open_dataset(Path(data))
        labels = _labels_of(dataset, cases, split_file or Path(data) / "splits.json")
        names, values = dataset.class_names, dataset.class_values
        ignore = dataset.ignore_value
        regions = dataset.regions if regions is None else regions
    elif references is not None:
        labels = {
            file.name.removesuffix(".nii.gz"): file for file in sorted(Path(references).glob("*.nii.gz"))
        }
        names, values = _classes_beside(folder)
    else:
        raise UserError(
            "Nothing to compare with", expected="--data FOLDER or --references FOLDER", do="name one of them"
        )
    if not labels:
        raise UserError(
            "No reference labels found", path=data or references, expected=f"{cases} cases with labels"
        )
    with progress("evaluate") as report:
        table = evaluate_folder(
            folder,
            labels,
            names,
            values,
            Path(out) if out else folder,
            lcc=largest_component,
            profile=profile,
            nsd_tolerance_mm=nsd_tolerance_mm,
            ignore_value=ignore,
            trust_image_geometry=trust_image_geometry,
            regions=read_regions(regions, names, values),
            workers=workers,
            progress=report,
        )
    write_manifest(Path(out) if out else folder, "evaluate", cases=len(labels), profile=profile)
    return table


def _labels_of(dataset: Dataset, cases: str, split_file: Path) -> Mapping[str, Path]:
    if cases == "test":
        chosen = dataset.pool("test")
    else:
        chosen = tuple(dataset.case(name) for name in load_split(split_file, dataset, 0).val)
    return {case.name: case.label for case in chosen if case.label is not None}


def _classes_beside(predictions: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Class names and values from the description that `predict` writes beside its output."""
    description = predictions / "semivox.json"
    if not description.exists():
        raise UserError(
            "The predictions' classes are not known",
            path=description,
            found="no such file",
            expected="the description that `semivox predict` writes",
            do="use --data FOLDER instead of --references",
        )
    labels = read_json(description)["labels"]
    return tuple(labels), tuple(int(value) for value in labels.values())
