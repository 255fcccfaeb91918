"""The cases that the paper's pictures show, read from finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import pandas as pd

from semivox.benchmark.jobs import Job
from semivox.evaluation.summary import class_rows
from semivox.io.volume import read_image, read_label
from semivox.reporting.paper.gallery import Scene, save_slices, save_surfaces
from semivox.reporting.slices import ras_spacing, to_ras


def save_cases(path: Path, jobs: Mapping[str, Job], title: str, count: int = 3) -> list[str]:
    """Draw slices and surfaces of some cases; return the names of the files.

    The cases have the lowest, the median and the highest mean Dice over the methods, so that no method chose
    them.

    Args:
        path: without ending.
        jobs: a finished run of each method.
        title: above the pictures.
        count: cases.
    """
    scores = {name: class_rows(job.table()).groupby("case")["dice"].mean() for name, job in jobs.items()}
    chosen = spread_cases(pd.DataFrame(scores), count)
    scenes = [
        _scene(case, jobs, {name: float(values[case]) for name, values in scores.items()}) for case in chosen
    ]
    classes = next(iter(jobs.values())).workspace.dataset.class_names
    for kind, save in (("slices", save_slices), ("surfaces", save_surfaces)):
        save(path.with_name(f"{path.name}-{kind}"), scenes, classes, title)
    return [f"{path.name}-{kind}.png" for kind in ("slices", "surfaces")]


def spread_cases(scores: pd.DataFrame, count: int) -> list[str]:
    """Return cases from the lowest to the highest mean over methods, evenly in rank.

    Args:
        scores: cases x methods.
        count: how many; fewer if there are not as many.
    """
    ordered = scores.mean(axis=1).sort_values(kind="stable").index
    count = min(count, len(ordered))
    places = [round(index * (len(ordered) - 1) / max(count - 1, 1)) for index in range(count)]
    return [str(ordered[place]) for place in places]


def _scene(name: str, jobs: Mapping[str, Job], scores: Mapping[str, float]) -> Scene:
    dataset = next(iter(jobs.values())).workspace.dataset
    case = dataset.case(name)
    image = read_image(case.images)
    assert case.label is not None
    axes = "".join(nib.aff2axcodes(image.affine))
    labels = {"": read_label(case.label, dataset.class_values, like=image).array}
    for row, job in jobs.items():
        labels[row] = read_label(job.scores / f"{name}.nii.gz", dataset.class_values).array
    turned = {row: to_ras(label, axes) for row, label in labels.items()}
    truth = turned.pop("")
    return Scene(
        name, to_ras(image.array[0], axes), truth, turned, ras_spacing(image.spacing_mm, axes), scores
    )
