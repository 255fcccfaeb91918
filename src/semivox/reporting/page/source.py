"""What a report is made from: the run, the scores, and where the files of each case are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import entr

from semivox.config import Config, parse_config
from semivox.datasets.dataset import open_dataset
from semivox.datasets.splits import Split
from semivox.errors import UserError, shortened
from semivox.evaluation.evaluate import evaluate_folder
from semivox.evaluation.references import Classes
from semivox.evaluation.summary import read_metrics
from semivox.files import read_json, read_yaml
from semivox.inference.model import load_model
from semivox.inference.outputs import DESCRIPTION, UNCERTAINTY
from semivox.inference.predict import predict_files
from semivox.inference.sources import Scan, find_scans, read_scan
from semivox.io.volume import IGNORE, read_image, read_label
from semivox.preprocessing.plan import Plan, load_plan
from semivox.progress import ProgressFactory
from semivox.reporting.slices import RasImage, turned
from semivox.run import VALIDATION, Run


@dataclass(frozen=True)
class RunFacts:
    """What a run folder tells about itself."""

    folder: Path
    config: Config
    split: Split
    plan: Plan
    report: Mapping[str, Any]  # run_report.json
    environment: Mapping[str, Any]  # env.json
    log: pd.DataFrame | None  # logs/metrics.csv, None before the first row
    calibrated: bool  # validation cases decided temperature or clean-up of the predictions

    @property
    def title(self) -> str:
        return f"{self.config.method.name} on {self.plan.dataset}"

    @property
    def trained(self) -> Mapping[str, Any]:
        """What training reported: iterations, times, the checkpoint taken."""
        return dict(self.report.get("train", {}))

    @property
    def data(self) -> Path:
        """The data set that the run was made from; it may have been moved since."""
        made_from = str(self.report.get("made_from", {}).get("dataset", ""))
        return Path(made_from.removeprefix(f"{self.plan.dataset} in "))


@dataclass(frozen=True)
class Scored:
    """A folder of predictions with its `metrics.csv`."""

    folder: Path
    table: pd.DataFrame  # one row a case and class
    which: str  # "validation" or "test" cases, or just "scored" ones
    files: Mapping[str, tuple[Path | None, Path]]  # prediction, if there is one, and reference of each case
    scans: Mapping[str, Scan]  # of each case, where it was found

    @property
    def count(self) -> int:
        """Number of cases."""
        return int(self.table["case"].nunique())


@dataclass(frozen=True)
class CaseVolumes:
    """The voxels of one case, axes to right, front and head."""

    affine: NDArray[np.float64]  # (4, 4), voxel to world mm
    scan: RasImage
    truth: NDArray[np.uint8]  # (X, Y, Z) class indices, `IGNORE` taken for background
    found: NDArray[np.uint8]  # the same of the prediction
    doubt: NDArray[Any] | None  # (X, Y, Z) uncertainty, 0 or more; None without a map
    probs: NDArray[Any] | None  # (X, Y, Z, K) probabilities, None unless they were saved


def read_run(folder: Path) -> RunFacts:
    """Read what a run folder tells about itself.

    Raises:
        UserError: no trained run in this folder, or damaged files.
    """
    run = Run(folder)
    if not run.is_trained or not run.config_file.is_file():
        found = "no such folder" if not folder.is_dir() else "no config.yaml with a trained model"
        do = "name the folder of a finished run, which `semivox train` prints at its end"
        raise UserError("There is no trained run to report on", found, "a run folder", do, folder)
    split = Split.model_validate(read_json(folder / "splits.json")["folds"][0])
    log = pd.read_csv(run.metrics_file) if run.metrics_file.is_file() else None
    environment = read_json(folder / "env.json") if (folder / "env.json").is_file() else {}
    config = parse_config(read_yaml(run.config_file))
    plan = load_plan(folder / "plans.json")
    calibration = (read_yaml(folder / "model.yaml").get("calibration") or {}).get("figures")
    return RunFacts(folder, config, split, plan, run.manifest.read(), environment, log, bool(calibration))


def score_validation(run: RunFacts, data: Path, progress: ProgressFactory) -> Path:
    """Return the folder with predictions and scores of a run's validation cases, after making what it lacks.

    Probabilities and maps of the uncertainty are saved, too. Scans or labels that are no longer in `data`, or
    unreadable, are a `UserError`.
    """
    folder, cases, own = run.folder / VALIDATION, run.split.val, Run(run.folder)
    if own.is_current(f"{VALIDATION}/metrics.csv"):
        return folder
    if not data.is_dir():
        do = "name it: --data FOLDER; or report on other predictions with -i"
        raise UserError("The data set of the run is no longer there", str(data), "the scans", do, run.folder)
    model, dataset = load_model(run.folder), open_dataset(data)
    known = {case.name: case for case in dataset.cases}
    labels = {name: label for name in cases if name in known and (label := known[name].label) is not None}
    if lacking := [name for name in cases if name not in labels]:
        what, expected = "Validation cases are missing in the data set", "all of them, with labels"
        raise UserError(what, shortened(lacking, 5), expected, path=data)
    described = folder / DESCRIPTION
    other = described.is_file() and read_json(described).get("model") != model.digest
    with own.manifest.adopting(folder.name), progress("validate") as report:
        scans = {name: known[name].images for name in cases}
        saved: dict[str, Any] = {"save_probabilities": True, "save_uncertainty": True}
        predict_files(model, scans, folder, **saved, overwrite=other, progress=report)
        evaluate_folder(folder, labels, Classes.of(dataset), folder, workers=0)
    return folder


def read_scored(folder: Path, run: RunFacts, images: Path | None = None) -> Scored:
    """Read scores, and find the files behind them.

    `images` is the folder of the scans, if they are no longer where `predict` read them.

    Raises:
        UserError: no scores in this folder.
    """
    if not (folder / "metrics.csv").is_file():
        do = f"score the predictions first: semivox evaluate -i {folder} -d DATA"
        raise UserError("There are no scores in this folder", "no metrics.csv", None, do, folder)
    table = read_metrics(folder / "metrics.csv")
    entries = read_json(folder / "summary.json").get("metric_per_case", [])
    names = list(dict.fromkeys(table["case"]))
    files = {
        case: (Path(found) if (found := entry["prediction_file"]) else None, Path(entry["reference_file"]))
        for case, entry in zip(names, entries, strict=False)
    }
    roles = {run.split.roles().get(name, "test") for name in names}
    known = {"val": "validation", "test": "test"}
    which = known.get(roles.pop(), "training") if len(roles) == 1 else "scored"
    return Scored(folder, table, which, files, _scans(folder, run, names, images))


def read_case(case: str, scored: Scored, run: RunFacts) -> CaseVolumes | None:
    """Read the files of a case; None if its scan, reference or prediction is no longer there."""
    prediction, reference = scored.files.get(case, (None, Path("/nowhere")))
    if case not in scored.scans or not reference.is_file():
        return None
    scan = read_scan(scored.scans[case], trust_image_geometry=True)
    truth = read_label(reference, run.plan.class_values, ignore=run.plan.ignore_value).array
    if truth.shape != scan.array.shape[1:]:
        return None
    found = np.zeros_like(truth)
    if prediction is not None and prediction.is_file():
        found = read_label(prediction, run.plan.class_values).array
    doubt, probs = _beside(scored.folder, case, truth.shape)
    labels = np.where(truth == IGNORE, 0, truth), found, doubt, probs
    turn = nib.orientations.io_orientation(scan.affine)
    affine = scan.affine @ nib.orientations.inv_ornt_aff(turn, truth.shape)
    return CaseVolumes(affine, *turned(scan.array[0], scan.spacing_mm, scan.axes, *labels))


def _beside(
    folder: Path, case: str, shape: tuple[int, ...]
) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Uncertainty and probabilities of a case, where `predict` saved them; else the entropy of the latter."""
    probs = doubt = None
    if (file := folder / f"{case}.npz").is_file():
        with np.load(file, allow_pickle=False) as saved:
            probs = np.moveaxis(saved["probabilities"].astype(np.float32), 0, -1)
        doubt = entr(probs).sum(-1)
    if (file := folder / f"{case}{UNCERTAINTY}").is_file():
        doubt = read_image([file]).array[0]
    return doubt if doubt is not None and doubt.shape == shape else None, probs


def _scans(folder: Path, run: RunFacts, names: list[str], images: Path | None) -> dict[str, Scan]:
    """Find the scan of each case: in `images`, where `predict` read it, or in the run's data set."""
    made = folder / "run_report.json"
    source = read_json(made).get("predict", {}).get("source") if made.is_file() else None
    found: dict[str, Scan] = {}
    if run.data.is_dir():
        dataset = {case.name: case for case in open_dataset(run.data).cases}
        found |= {name: Scan(name, dataset[name].images) for name in names if name in dataset}
    for place in (Path(source) if source else None, images):
        if place is not None and place.exists():
            found |= {scan.name: scan for scan in find_scans(place, len(run.plan.channels))}
    return {name: found[name] for name in names if name in found}
