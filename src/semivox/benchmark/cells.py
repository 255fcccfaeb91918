"""One run of a comparison: train, predict the held-out cases, score them on the scanner's grid."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from semivox.benchmark.grid import Place
from semivox.benchmark.scores import case_table
from semivox.config import Config
from semivox.datasets.dataset import Case
from semivox.datasets.declared import Classes
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.evaluation.evaluate import evaluate_folder
from semivox.evaluation.summary import read_metrics
from semivox.files import read_json, write_json
from semivox.inference.model import load_model
from semivox.inference.predict import predict_files
from semivox.methods.base import Method, SingleMethod
from semivox.methods.cost import Cost
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.workspace import Workspace
from semivox.progress import ProgressFactory, no_progress
from semivox.run import Run
from semivox.training.runs import labels_alone, train_run, trainable

Role = Literal["test", "val"]


@dataclass(frozen=True)
class Cell:
    """One run of a comparison, ready for it or done; can be sent to another process."""

    place: Place
    workspace: Workspace
    split: Split
    plan: Plan
    config: Config  # complete settings
    run: Path  # the run folder; predictions and scores go to `run/role`
    role: Role
    cases: tuple[Case, ...]  # those of that role
    cost: Cost | None = None  # size and MACs for one patch; None if they cannot be counted

    @property
    def scores(self) -> Path:
        """Folder of predictions and scores."""
        return self.run / self.role

    @property
    def is_finished(self) -> bool:
        """Whether it is trained, and scored with the reference labels as they are now."""
        if not ((self.scores / "metrics.csv").exists() and self._timing.exists()):
            return False
        labels = _digest(self.cases)
        return bool(read_json(self._timing).get("labels", labels) == labels)

    def table(self, network: str = "") -> pd.DataFrame:
        """Read the scores, of the method's prediction or of a network alone: one row a case and class."""
        return read_metrics(self.scores / network / "metrics.csv")

    def facts(self) -> dict[str, Any]:
        """Return size and times of a finished run."""
        trained, times = read_json(self.run / "run_report.json")["train"], read_json(self._timing)
        seconds = {name: times.get(name, 0.0) for name in ("seconds_predicting", "seconds_scoring")}
        names = ("iterations", "checkpoint", "seconds_training")
        return {name: trained[name] for name in names} | seconds | {"parameters": trained["parameters"]}

    def sizes(self) -> dict[str, float]:
        """Return MACs and parameters in the conventions of the literature, for the table of runs."""
        if self.cost is None:
            return {}
        one, step = self.cost
        macs = {"macs": one.macs, "macs_step": step.macs, "macs_printed": step.printed_macs}
        return {**macs, "parameters_predicting": one.parameters}

    def scored_cases(self) -> pd.DataFrame:
        """Read the scores of a finished run by case: of its prediction, then of each network alone."""
        run = {
            "preset": self.place.preset or "default", "labeled": len(self.split.labeled),
            "method": self.place.variant.label, "seed": self.place.seed,
        }  # fmt: skip
        own = case_table(self.table(), **run, network="", **self.facts(), **self.sizes())
        alone = read_json(self._timing).get("members", [])
        return pd.concat([own, *(case_table(self.table(one), **run, network=one) for one in alone)])

    def check(self) -> None:
        """Refuse a run that was begun with other settings or data than this cell has."""
        made_from = self.workspace.made_from(self.split, trainable(self.plan, self.config))
        config = self.config if self.split.unlabeled else labels_alone(self.config)
        Run(self.run).resume_config(config, made_from)

    def execute(self, *, bar: bool = False, progress: ProgressFactory = no_progress) -> None:
        """Train, predict and score what is missing."""
        train_run(self.workspace, self.split, self.plan, self.config, self.run, bar=bar)
        if not self.is_finished:
            self._score(progress)

    @property
    def _timing(self) -> Path:
        return self.scores / "timing.json"

    def _score(self, progress: ProgressFactory) -> None:
        model, started = load_model(self.run), time.monotonic()
        several = has_members(model.method)
        with progress(f"predict {self.place.variant.label}") as report:
            images = {case.name: case.images for case in self.cases}
            predict_files(model, images, self.scores, save_members=several, progress=report)
        predicted = time.monotonic()
        members = sorted(folder.name for folder in self.scores.iterdir() if folder.is_dir() and several)
        labels = {case.name: case.label for case in self.cases if case.label is not None}
        classes = Classes(model.plan.class_names, model.plan.class_values, model.plan.ignore_value)
        workers = 2 if self.config.train.workers else 0  # no process where none is wanted
        for folder in (self.scores, *(self.scores / name for name in members)):
            with progress(f"evaluate {self.place.variant.label}") as report:
                evaluate_folder(folder, labels, classes, folder, workers=workers, progress=report)
        times = {"predicting": predicted - started, "scoring": time.monotonic() - predicted}
        seconds = {f"seconds_{name}": round(value, 1) for name, value in times.items()}
        if self._timing.exists():  # scored anew; the predictions are still there
            seconds["seconds_predicting"] = read_json(self._timing)["seconds_predicting"]
        write_json(self._timing, {**seconds, "members": members, "labels": _digest(self.cases)})


def _digest(cases: Sequence[Case]) -> str:
    """Return a digest of the content of their reference labels."""
    files = [case.label for case in cases if case.label is not None]
    return sha256("".join(_content(file, file.stat().st_mtime_ns) for file in files).encode()).hexdigest()


@cache
def _content(file: Path, _changed_ns: int) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def has_members(method: Method) -> bool:
    """Tell whether a method has several networks (or decoders), which can then be scored alone, too."""
    own = type(method).predict_members
    return own is not Method.predict_members and own is not SingleMethod.predict_members


def scored_cases(workspace: Workspace, split: Split, role: Role) -> tuple[Case, ...]:
    """Return the test or validation cases that have a reference label; if there is none, a `UserError`."""
    cases = map(workspace.dataset.case, split.test if role == "test" else split.val)
    chosen = tuple(case for case in cases if case.label is not None)
    if not chosen:
        do = "keep some: --set split.val=N" if role == "val" else "add labelsTs, or score --cases val"
        raise UserError(
            f"The data set has no {role} cases with reference labels", do=do, path=workspace.folder
        )
    return chosen
