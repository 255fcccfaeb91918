"""Score a folder of predictions.

Writes `metrics.csv`, one row a case and class, and `summary.json` in nnU-Net's shape.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from semivox.datasets.regions import Regions
from semivox.errors import UserError
from semivox.evaluation.metrics import Profile, case_metrics
from semivox.evaluation.statistics import class_rows, metric_names, summarise
from semivox.files import replacing, write_json
from semivox.io.geometry import affine_text, same_affine
from semivox.io.volume import IGNORE, Volume, read_label

Row = dict[str, Any]

_CONFIDENCE = 0.95
_TEXT = ("case", "class", "status", "profile")
_NNUNET = {"Dice": "dice", "IoU": "jaccard", "TP": "tp", "FP": "fp", "FN": "fn", "TN": "tn"}


@dataclass(frozen=True)
class _Task:
    """What a worker process needs to score one case."""

    case: str
    prediction: Path | None
    reference: Path
    class_names: tuple[str, ...]
    class_values: tuple[int, ...]
    ignore_value: int | None
    options: dict[str, Any]
    trust: bool
    regions: tuple[tuple[str, tuple[int, ...]], ...]


def evaluate_folder(
    predictions: Path,
    references: Mapping[str, Path],
    class_names: Sequence[str],
    class_values: Sequence[int],
    out: Path,
    *,
    lcc: bool = True,
    profile: Profile = "semivox",
    workers: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
    nsd_tolerance_mm: float = 1.0,
    ignore_value: int | None = None,
    trust_image_geometry: bool = False,
    regions: Regions | None = None,
) -> pd.DataFrame:
    """Score `CASE.nii.gz` (or `CASE.nii`) in `predictions` against the reference of each case.

    A case without a prediction file gets the status `missing`; files without a reference are not looked at.

    Args:
        predictions: folder of label files with the values of `class_values`.
        references: path of the reference label of each case.
        class_names: background first.
        class_values: value on disk of each class.
        out: folder for `metrics.csv` and `summary.json`.
        lcc: add the scores of the largest component of each class, columns `*_lcc`.
        profile: see `semivox.evaluation.metrics.case_metrics`.
        workers: processes; below 2 everything happens in this one.
        progress: called with (cases done, cases, name) after each case.
        nsd_tolerance_mm: tolerance of the normalised surface distance.
        ignore_value: value on disk of reference voxels that are not annotated; there nothing is scored.
        trust_image_geometry: compare voxel by voxel whatever the affines say, with the prediction's voxel
            size, which is that of its image.
        regions: values on disk of unions of classes, scored as further rows; means leave them out.

    Returns:
        One row a case and foreground class or region: case, class (name), value (on disk; of a region
        "(1, 2)", as nnU-Net writes it), status, the scores, volumes, voxel counts.

    Raises:
        UserError: no reference, no prediction at all, an unknown profile, a prediction whose shape, affine or
            values do not fit its reference.
    """
    if profile not in get_args(Profile):
        raise UserError("Unknown profile", found=profile, expected=" or ".join(get_args(Profile)))
    options = {"lcc": lcc, "profile": profile, "nsd_tolerance_mm": nsd_tolerance_mm}
    tasks = [
        _Task(
            case,
            _prediction_file(predictions, case),
            path,
            tuple(class_names),
            tuple(class_values),
            ignore_value,
            options,
            trust_image_geometry,
            tuple((regions or {}).items()),
        )
        for case, path in references.items()
    ]
    _check(predictions, tasks)
    rows = {}
    for done, (case, found) in enumerate(_run(tasks, workers), start=1):
        rows[case] = found
        if progress is not None:
            progress(done, len(tasks), case)
    table = pd.DataFrame([row for case in references for row in rows[case]])
    with replacing(out / "metrics.csv") as temporary:
        table.to_csv(temporary, index=False)
    write_json(out / "summary.json", _summary(table, tasks))
    return table


def read_metrics(path: Path) -> pd.DataFrame:
    """Read a `metrics.csv` as `evaluate_folder` returned it.

    Raises:
        UserError: no such file, or not such a file.
    """
    try:
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(_TEXT, str),
            keep_default_na=False,
            na_values=[""],
            float_precision="round_trip",
        )
    except (OSError, ValueError) as error:
        raise UserError(
            "The scores cannot be read",
            path=path,
            found=str(error),
            expected="a metrics.csv of `semivox evaluate`",
        ) from error
    if lacking := [name for name in (*_TEXT, "dice") if name not in table.columns]:
        raise UserError(
            "The file is not a table of scores",
            path=path,
            found=f"no column {', '.join(lacking)}",
            expected="a metrics.csv of `semivox evaluate`",
        )
    return table


def _prediction_file(folder: Path, case: str) -> Path | None:
    candidates = (folder / f"{case}{suffix}" for suffix in (".nii.gz", ".nii"))
    return next((path for path in candidates if path.is_file()), None)


def _check(predictions: Path, tasks: Sequence[_Task]) -> None:
    if not tasks:
        raise UserError(
            "There is no reference label to compare with", expected="at least one case with a label"
        )
    if all(task.prediction is None for task in tasks):
        raise UserError(
            "No prediction was found for any case",
            path=predictions,
            found="no such folder" if not predictions.is_dir() else "no file with the name of a case",
            expected=f"{tasks[0].case}.nii.gz and so on, one file for each of {len(tasks)} cases",
            do="check the folder; `semivox predict` writes such files",
        )


def _run(tasks: Sequence[_Task], workers: int) -> Iterator[tuple[str, list[Row]]]:
    """Results as they come, from worker processes if there is enough to do."""
    workers = min(workers, len(tasks))
    if workers < 2:
        yield from ((task.case, _score(task)) for task in tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_score, task): task.case for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process died while scoring",
                found="killed from outside (often: out of memory), or a script without a main guard",
                expected="workers that run to the end",
                do="use fewer workers; 0 works without any",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _score(task: _Task) -> list[Row]:
    reference = read_label(task.reference, task.class_values, ignore=task.ignore_value)
    unknown = reference.array == IGNORE if task.ignore_value is not None else None
    prediction, spacing_mm = None, reference.spacing_mm
    if task.prediction is not None:
        found = read_label(task.prediction, task.class_values)
        _check_grid(found, reference, task)
        prediction, spacing_mm = found.array, found.spacing_mm if task.trust else spacing_mm
    if unknown is not None:
        for label in (prediction, reference.array):
            if label is not None:
                label[unknown] = 0
    rows = case_metrics(prediction, reference.array, len(task.class_names), spacing_mm, **task.options)
    names: list[tuple[str, int | str]] = list(zip(task.class_names[1:], task.class_values[1:], strict=True))
    for name, values in task.regions:
        members = [task.class_values.index(value) for value in values]
        union = None if prediction is None else np.isin(prediction, members).astype(np.uint8)
        whole = np.isin(reference.array, members).astype(np.uint8)
        rows += case_metrics(union, whole, 2, spacing_mm, **task.options)
        names.append((name, str(values)))
    return [
        {"case": task.case, "class": name, "value": value, **{key: row[key] for key in row if key != "class"}}
        for row, (name, value) in zip(rows, names, strict=True)
    ]


def _check_grid(found: Volume, reference: Volume, task: _Task) -> None:
    if found.array.shape != reference.array.shape:
        what, other, own = "shape", str(found.array.shape), str(reference.array.shape)
    elif not task.trust and not same_affine(found.affine, reference.affine, found.array.shape):
        what, other, own = "affine", affine_text(found.affine), affine_text(reference.affine)
    else:
        return
    raise UserError(
        f"The {what} of a prediction is not that of its reference",
        path=task.prediction,
        found=other,
        expected=f"{own} as in {task.reference}",
        do="predict from the scan that the reference was drawn on, or resample the prediction onto its grid;"
        " if only the reference's header is wrong, use --trust-image-geometry",
    )


def _summary(table: pd.DataFrame, tasks: Sequence[_Task]) -> dict[str, Any]:
    """nnU-Net's three entries, with our scores beside its own, and `semivox`: intervals, n, failures.

    The foreground mean averages each case over its classes, without regions, first, then over the cases.
    """
    scores = table[list(_NNUNET.values())].set_axis(list(_NNUNET), axis="columns")
    scores["n_pred"], scores["n_ref"] = scores["TP"] + scores["FP"], scores["TP"] + scores["FN"]
    scores = pd.concat([scores, table[metric_names(table)]], axis="columns").astype(float)
    values = table["value"].astype(str)
    rows_of = table.groupby("case", sort=False).groups
    return {
        "foreground_mean": scores.loc[class_rows(table).index]
        .groupby(table["case"], sort=False)
        .mean()
        .mean()
        .to_dict(),
        "mean": {value: rows.mean().to_dict() for value, rows in scores.groupby(values, sort=False)},
        "metric_per_case": [
            {
                "metrics": {values[row]: scores.loc[row].to_dict() for row in rows_of[task.case]},
                "prediction_file": None if task.prediction is None else str(task.prediction),
                "reference_file": str(task.reference),
            }
            for task in tasks
        ],
        "semivox": _ours(table, tasks),
    }


def _ours(table: pd.DataFrame, tasks: Sequence[_Task]) -> dict[str, Any]:
    by_class: dict[str, dict[str, Any]] = {}
    for row in summarise(table, _CONFIDENCE).to_dict("records"):
        by_class.setdefault(row.pop("class"), {})[row.pop("metric")] = row
    return {
        "profile": tasks[0].options["profile"],
        "nsd_tolerance_mm": tasks[0].options["nsd_tolerance_mm"],
        "confidence": _CONFIDENCE,
        "cases": len(tasks),
        "statuses": {str(status): int(count) for status, count in table["status"].value_counts().items()},
        "summary": by_class,
    }
