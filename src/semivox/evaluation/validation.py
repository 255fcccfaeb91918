"""Segment and score the validation cases of a finished run, on the scanners' own grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semivox.datasets.dataset import open_dataset
from semivox.errors import UserError, shortened
from semivox.evaluation.evaluate import evaluate_folder
from semivox.evaluation.references import Classes
from semivox.files import read_json
from semivox.inference.model import load_model
from semivox.inference.outputs import DESCRIPTION
from semivox.inference.predict import predict_files
from semivox.progress import ProgressFactory, no_progress
from semivox.run import Run

VALIDATION = "validation"


def score_validation(
    run: Path, data: Path, cases: tuple[str, ...], progress: ProgressFactory = no_progress
) -> Path:
    """Write predictions and scores of a run's validation cases to `RUN/validation`; return that folder.

    Probabilities and maps of the uncertainty are saved, too. What is there already of this model is kept.
    Scans or labels that are no longer there, or unreadable, are a `UserError`.
    """
    folder, model, dataset = run / VALIDATION, load_model(run), open_dataset(data)
    found = {case.name: case for case in dataset.cases if case.name in cases and case.label is not None}
    if lacking := [name for name in cases if name not in found]:
        what, expected = "Validation cases are missing in the data set", "all of them, with labels"
        raise UserError(what, shortened(lacking, 5), expected, path=data)
    described = folder / DESCRIPTION
    other = described.is_file() and read_json(described).get("model") != model.digest
    with Run(run).manifest.adopting(VALIDATION), progress("validate") as report:
        scans = {name: found[name].images for name in cases}
        saved: dict[str, Any] = {"save_probabilities": True, "save_uncertainty": True}
        predict_files(model, scans, folder, **saved, overwrite=other, progress=report)
        references = {name: label for name in cases if (label := found[name].label) is not None}
        evaluate_folder(folder, references, Classes.of(dataset), folder, workers=0)
    return folder
