"""Score a folder of predictions against reference segmentations: `metrics.csv` and `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from semivox.datasets.declared import Classes
from semivox.errors import UserError, shortened
from semivox.evaluation.metrics import Profile, case_metrics
from semivox.evaluation.references import case_files
from semivox.evaluation.summary import nnunet_summary, read_metrics
from semivox.files import replacing, write_json
from semivox.io.geometry import check_grid
from semivox.io.reader import run_jobs
from semivox.io.volume import IGNORE, read_label
from semivox.progress import Progress

Row = dict[str, Any]


class _Task(NamedTuple):
    """What a worker process needs to score one case."""

    case: str
    prediction: Path | None
    reference: Path
    classes: Classes
    options: dict[str, Any]
    trust: bool


def evaluate_folder(
    predictions: Path,
    references: Mapping[str, Path],
    classes: Classes,
    out: Path,
    *,
    lcc: bool = True,
    profile: Profile = "semivox",
    workers: int = 2,
    progress: Progress | None = None,
    nsd_tolerance_mm: float = 1.0,
    trust_image_geometry: bool = False,
) -> pd.DataFrame:
    """Score the prediction of each case against its reference; write `metrics.csv` and `summary.json`.

    Files are matched by the name of the case, whatever their ending. A case without a prediction file gets
    the status `missing`; predictions without a reference are named in `summary.json`. A case that cannot be
    scored does not stop the others.

    Args:
        predictions: folder of label files with the values of `classes`.
        references: path of the reference label of each case.
        classes: what the files hold.
        out: folder for the results.
        workers: processes; below 2 everything happens in this one.
        progress: called with (cases done, cases, name) after each case.
        trust_image_geometry: compare voxel by voxel whatever the affines say, on the prediction's grid.
        lcc, profile, nsd_tolerance_mm: as for `case_metrics`.

    Returns:
        One row a case and foreground class or region: case, class (name), value (on disk; of a region
        "(1, 2)", as nnU-Net writes it), status, the scores, volumes, voxel counts. `attrs` names the cases
        `missing` a prediction and the predictions `without_reference`.

    Raises:
        UserError: no reference, no prediction at all; or, after all others are scored and written, cases that
            cannot be read or do not fit their reference.
    """
    found = case_files(predictions)
    _check(predictions, found, references)
    _check_place(out)
    options = {"lcc": lcc, "profile": profile, "nsd_tolerance_mm": nsd_tolerance_mm}
    tasks = [
        _Task(case, found.get(case), path, classes, options, trust_image_geometry)
        for case, path in references.items()
    ]
    rows, failure = _score_all(tasks, workers, progress)
    if failure is not None and not rows:
        raise failure
    table = pd.DataFrame([row for case in references for row in rows.get(case, [])])
    over = {
        "missing": [case for case in references if case not in found],
        "without_reference": [case for case in found if case not in references],
    }
    failed = sorted(references.keys() - rows.keys())
    facts = {"profile": profile, "nsd_tolerance_mm": nsd_tolerance_mm, **over, "failed": failed}
    with replacing(out / "metrics.csv") as temporary:
        table.to_csv(temporary, index=False)
    files = {task.case: (task.prediction, task.reference) for task in tasks}
    write_json(out / "summary.json", nnunet_summary(table, files, facts))
    if failure is not None:
        what = f"{failure.what}; the scores of the other cases are in {out}"
        raise UserError(what, failure.found, failure.expected, failure.do, failure.path)
    table.attrs.update(over)
    return table


def _check(folder: Path, found: Mapping[str, Path], references: Mapping[str, Path]) -> None:
    if not references:
        do = "name a folder of labels with --references, or score --cases val"
        raise UserError("There is no reference label to compare with", None, "a case with a label", do)
    if not found.keys() & references.keys():
        what = f"no file with the name of a case, but {shortened(found, 5)}" if found else "no label file"
        expected = f"{next(iter(references))}.nii.gz and so on, one file for each of {len(references)} cases"
        do = "check the folder; `semivox predict` writes such files"
        missing = what if folder.is_dir() else "no such folder"
        raise UserError("No prediction was found for any case", missing, expected, do, folder)


def _check_place(folder: Path) -> None:
    """Refuse to overwrite scores that semivox did not write, such as the `summary.json` of nnU-Net."""
    table, summary = folder / "metrics.csv", folder / "summary.json"
    if table.is_file():
        read_metrics(table)
    elif summary.exists():
        what, expected = "There is another file of this name", "scores of semivox, to be replaced"
        raise UserError(what, "no metrics.csv beside it", expected, "choose another -o", summary)


def _score_all(
    tasks: Sequence[_Task], workers: int, progress: Progress | None
) -> tuple[dict[str, list[Row]], UserError | None]:
    """Rows of each case, and why some have none."""
    rows: dict[str, list[Row]] = {}
    workers = min(workers, len(tasks)) if min(workers, len(tasks)) > 1 else 0
    try:
        for task, found in run_jobs(_score, tasks, workers, name=lambda task: task.case, doing="scoring"):
            rows[task.case] = found
            if progress is not None:
                progress(len(rows), len(tasks), task.case)
    except UserError as failure:  # of all cases that cannot be scored, once the others are
        return rows, failure
    return rows, None


def _score(task: _Task) -> list[Row]:
    classes = task.classes
    reference = read_label(task.reference, classes.values, ignore=classes.ignore)
    true, found, affine = reference.array, None, reference.affine
    if task.prediction is not None:
        prediction = read_label(task.prediction, classes.values)
        other = f"its reference {task.reference}"
        check_grid(task.prediction, prediction.grid, reference.grid, other, trust=task.trust)
        found, affine = prediction.array, prediction.affine if task.trust else affine
        found[true == IGNORE] = 0
    true[true == IGNORE] = 0
    rows = case_metrics(found, true, len(classes.names), affine, **task.options)
    names: list[tuple[str, int | str]] = list(zip(classes.names[1:], classes.values[1:], strict=True))
    for name, values in classes.regions.items():
        members = [classes.values.index(value) for value in values]
        union = None if found is None else np.isin(found, members).astype(np.uint8)
        rows += case_metrics(union, np.isin(true, members).astype(np.uint8), 2, affine, **task.options)
        names.append((name, str(values)))
    return [
        {"case": task.case, "class": name, "value": value, **{key: row[key] for key in row if key != "class"}}
        for row, (name, value) in zip(rows, names, strict=True)
    ]
