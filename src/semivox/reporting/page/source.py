"""What a report is made from: the run, the scores, and where the files of each case are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
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
    data: Path  # the data set that the run was made from, where it is now
    description: str  # of the data set, e.g. how published crops were made; empty if it is not there

    @property
    def title(self) -> str:
        return f"{self.config.method.name} on {self.plan.dataset}"

    @property
    def trained(self) -> Mapping[str, Any]:
        """What training reported: iterations, times, the checkpoint taken."""
        return dict(self.report.get("train", {}))


@dataclass(frozen=True)
class Scored:
    """Predictions with their `metrics.csv`."""

    folder: Path  # of the predictions; the scores may be elsewhere
    table: pd.DataFrame  # one row a case and class
    which: str  # "validation" or "test" cases, or just "scored" ones
    files: Mapping[str, tuple[Path | None, Path]]  # prediction, if there is one, and reference of each case
    scans: Mapping[str, Scan]  # of each case, where it was found
    maker: str = ""  # who predicted, where that was not the run as it is now

    @property
    def count(self) -> int:
        """Number of cases."""
        return int(self.table["case"].nunique())

    @property
    def cases(self) -> str:
        """How many cases of which kind there are, in words."""
        return f"{self.count} {self.which} case" + ("" if self.count == 1 else "s")


@dataclass(frozen=True)
class CaseVolumes:
    """The voxels of one case, axes to right, front and head."""

    affine: NDArray[np.float64]  # (4, 4), voxel to world mm
    scan: RasImage
    truth: NDArray[np.uint8]  # (X, Y, Z) class indices, `IGNORE` taken for background
    found: NDArray[np.uint8]  # the same of the prediction
    doubt: NDArray[Any] | None  # (X, Y, Z) uncertainty, 0 or more; None without a map
    probs: NDArray[Any] | None  # (X, Y, Z, K) probabilities, None unless they were saved


def read_run(folder: Path, data: Path | None = None) -> RunFacts:
    """Read what a run folder tells about itself; `data` is its data set, if that has been moved.

    Raises:
        UserError: no trained run in this folder, or damaged files; no such folder of data.
    """
    run = Run(folder)
    if not run.is_trained or not run.config_file.is_file():
        found = "no such folder" if not folder.is_dir() else "no config.yaml with a trained model"
        do = "name the folder of a finished run, which `semivox train` prints at its end"
        raise UserError("There is no trained run to report on", found, "a run folder", do, folder)
    if data is not None and not data.is_dir():
        raise UserError("The data set cannot be read", "no such folder", "the run's data set", path=data)
    split = Split.model_validate(read_json(folder / "splits.json")["folds"][0])
    log = pd.read_csv(run.metrics_file) if run.metrics_file.is_file() else None
    environment = read_json(folder / "env.json") if (folder / "env.json").is_file() else {}
    config = parse_config(read_yaml(run.config_file), run.config_file)
    plan = load_plan(folder / "plans.json")
    calibration = (read_yaml(folder / "model.yaml").get("calibration") or {}).get("figures")
    report = run.manifest.read()
    made_from = str(report.get("made_from", {}).get("dataset", "")).removeprefix(f"{plan.dataset} in ")
    data = data or Path(made_from)
    about = read_json(data / "dataset.json") if (data / "dataset.json").is_file() else {}
    told = str(about.get("description") or "") if isinstance(about, dict) else ""
    return RunFacts(folder, config, split, plan, report, environment, log, bool(calibration), data, told)


def score_validation(run: RunFacts, progress: ProgressFactory) -> Path:
    """Return the folder with predictions and scores of a run's validation cases, after making what it lacks.

    Probabilities and maps of the uncertainty are saved, too. Scans or labels that are no longer in the data
    set, or unreadable, are a `UserError`.
    """
    folder, cases, own, data = run.folder / VALIDATION, run.split.val, Run(run.folder), run.data
    if own.is_current(f"{VALIDATION}/metrics.csv"):
        return folder
    if not data.is_dir():
        do = "name it: --data FOLDER; or report on a folder of scored predictions"
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
        evaluate_folder(folder, labels, dataset.classes, folder, workers=0)
    return folder


def read_table(folder: Path) -> pd.DataFrame:
    """Read the scores in a folder; that there are none is a `UserError`."""
    if (folder / "metrics.csv").is_file():
        return read_metrics(folder / "metrics.csv")
    found = "no metrics.csv" if folder.is_dir() else "no such folder"
    do = f"score the predictions first: semivox evaluate -i {folder} -d DATA"
    raise UserError("There are no scores in this folder", found, None, do, folder)


def read_scored(folder: Path, run: RunFacts, images: Path | None = None) -> Scored:
    """Read scores, and find the files behind them, also in a folder or data set that has been moved.

    `images` is the folder of the scans, if they are no longer where `predict` read them.

    Raises:
        UserError: no scores in this folder, those of other classes, no scan of theirs in `images`.
    """
    table = read_table(folder)
    entries = read_json(folder / "summary.json").get("metric_per_case", [])
    names = list(dict.fromkeys(table["case"]))
    known = {case.name: case for case in open_dataset(run.data).cases} if run.data.is_dir() else {}
    files: dict[str, tuple[Path | None, Path]] = {}
    for case, entry in zip(names, entries, strict=False):
        found, reference = entry["prediction_file"], Path(entry["reference_file"])
        labels = [known[case].label] if case in known else []
        moved = [label for label in labels if label and label.parts[-2:] == reference.parts[-2:]]
        here = None if found is None else _first(folder / Path(found).name, Path(found))
        files[case] = here, _first(reference, *moved)
    made = next((found.parent for found, _ in files.values() if found and found.is_file()), folder)
    roles = {run.split.roles().get(name, "test") for name in names}
    kinds = {"val": "validation", "test": "test"}
    which = kinds.get(roles.pop(), "training") if len(roles) == 1 else "scored"
    scans = {name: Scan(name, case.images) for name, case in known.items()} | _scans(made, run, names, images)
    scans = {name: scans[name] for name in names if name in scans}
    return Scored(made, table, which, files, scans, _maker(made, run))


def read_case(case: str, scored: Scored, run: RunFacts) -> CaseVolumes | None:
    """Read the files of a case; None if its scan, reference or prediction is no longer there."""
    prediction, reference = scored.files.get(case, (None, Path("/nowhere")))
    needed = [reference] if prediction is None else [reference, prediction]
    if case not in scored.scans or not all(file.is_file() for file in needed):
        return None
    scan = read_scan(scored.scans[case], trust_image_geometry=True)
    truth = read_label(reference, run.plan.class_values, ignore=run.plan.ignore_value).array
    if truth.shape != scan.array.shape[1:]:
        return None
    found = np.zeros_like(truth)
    if prediction is not None:
        found = read_label(prediction, run.plan.class_values).array
    doubt, probs = _beside(scored.folder, case, truth.shape)
    labels = np.where(truth == IGNORE, 0, truth), found, doubt, probs
    turn = nib.orientations.io_orientation(scan.affine)
    affine = scan.affine @ nib.orientations.inv_ornt_aff(turn, truth.shape)
    return CaseVolumes(affine, *turned(scan.array[0], scan.spacing_mm, scan.axes, *labels))


def _maker(folder: Path, run: RunFacts) -> str:
    """Say who made predictions, unless it was the run as it is now; other classes are a `UserError`."""
    file, classes = folder / DESCRIPTION, dict(zip(run.plan.class_names, run.plan.class_values, strict=True))
    about = read_json(file) if file.is_file() else {}
    if (found := about.get("labels", classes)) != classes:
        do = "name the run that made them"
        raise UserError("The predictions are not of this run", f"classes {found}", f"{classes}", do, folder)
    own = folder == run.folder / VALIDATION or about.get("model") == load_model(run.folder, "cpu").digest
    return "" if own else f"{about['method']} on {about['dataset']}" if about else "unknown"


def _first(*files: Path) -> Path:
    """Return the first file that is there, else the last one."""
    return next((file for file in files if file.is_file()), files[-1])


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
    """Find the scans where `predict` read them, and in `images`."""
    made, channels = folder / "run_report.json", len(run.plan.channels)
    source = read_json(made).get("predict", {}).get("source") if made.is_file() else None
    found: dict[str, Scan] = {}
    with suppress(UserError):  # gone, or several DICOM series
        found |= {scan.name: scan for scan in find_scans(Path(source), channels)} if source else {}
    if images is None:
        return found
    given = {scan.name: scan for scan in find_scans(images, channels)}
    if not given.keys() & set(names):
        what, expected = "The folder holds no scan of a scored case", f"scans of {shortened(names, 5)}"
        raise UserError(what, shortened(list(given), 5), expected, path=images)
    return found | given
