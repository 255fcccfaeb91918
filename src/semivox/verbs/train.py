"""`train`: whatever is missing of plan and store, then a run, then the weights for inference."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from semivox.config import Config, load_config
from semivox.data.hidden import require_hidden_labels
from semivox.data.loaders import build_loaders
from semivox.data.plan import Plan, save_plan
from semivox.data.splits import Split, save_splits
from semivox.engine.budget import iterations_for, probe
from semivox.engine.checkpoints import best_path, load_weights
from semivox.engine.trainer import FitResult, fit
from semivox.errors import UserError
from semivox.inference.model import save_model
from semivox.methods import create, method_class
from semivox.methods.base import Method
from semivox.nets import NetFactory
from semivox.run import Run, write_manifest
from semivox.verbs.diagnosis import NOTICE, make_diagnosis
from semivox.verbs.prepare import prepare
from semivox.verbs.progress import ProgressFactory, no_progress
from semivox.verbs.validation import make_validator
from semivox.verbs.workspace import Workspace

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from semivox.engine.diagnosis import Diagnosis

DEFAULT_RUNS = Path("runs")
VALIDATIONS = 10  # a run, when `validate_every` is not set
STARTUP_S = 2.0  # first batches, last checkpoint


def train(
    data: Path | str,
    *,
    method: str | None = None,
    labeled: float | None = None,
    preset: str | None = None,
    config: Config | None = None,
    out: Path | str | None = None,
    work: Path | None = None,
    fresh: bool = False,
    diagnose: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> Path:
    """Train a model; the same call resumes an interrupted run.

    Args:
        data: a raw folder (nnU-Net raw or MSD layout) or a workspace.
        method: registered name; a shorthand for `config.method.name`.
        labeled: how many of the labels to use; a shorthand for `config.split.labeled`.
        preset: a shipped preset, see `semivox.config.preset_names`.
        config: complete settings instead of the three above.
        out: the run folder; default `runs/DATASET/METHOD/Nl_foldK_seedS`.
        work: the workspace folder for raw data.
        fresh: delete an earlier run in that folder first.
        diagnose: compare pseudo-labels with labels that training does not see, and write
            `diagnosis/diagnosis.csv` and `.png` in the run folder; the trained weights stay the same.
        bar: show the training progress bar.
        progress: shows the progress of the preparation.

    Returns:
        The run folder, with `model.safetensors` and `model.yaml` for `predict`.

    Raises:
        UserError: for bad input or a run that was begun with other settings.
    """
    config = config or load_config(preset=preset, method={"name": method}, split={"labeled": labeled})
    workers = 2 if config.train.workers else 0  # no process at all where none is wanted
    workspace, split, plan = prepare(data, config=config, work=work, workers=workers, progress=progress)
    _check_trainable(plan, config.method.name)
    if diagnose:
        require_hidden_labels(workspace.dataset, split)
    run = Run(Path(out) if out else default_folder(workspace, config, split))
    if fresh:
        run.clear()
    config = run.resume_config(config)
    if diagnose and run.is_trained and not run.diagnosis_file.exists():
        raise _no_diagnosis(run)
    if run.is_trained:
        return run.folder
    trained = _Training(workspace, split, plan, config).run(run, bar=bar, diagnose=diagnose)
    if run.diagnosis_file.exists():
        trained |= {"diagnosed": True, "diagnosis": NOTICE}
    write_manifest(run.folder, "train", **trained)
    return run.folder


def step_seconds(workspace: Workspace, split: Split, plan: Plan, config: Config) -> float:
    """Measure the time of one training step (see `engine.budget.probe`) in a prepared workspace."""
    training = _Training(workspace, split, plan, config)
    method = training._method()
    try:
        return probe(method, training._loaders(method, config.train.iterations), config.train)
    finally:
        torch.cuda.empty_cache()  # the run itself may happen in another process


def default_folder(workspace: Workspace, config: Config, split: Split) -> Path:
    """`runs/DATASET/METHOD/Nl_foldK_seedS` in the current folder."""
    name = f"{len(split.labeled)}l_fold{config.split.fold}_seed{config.train.seed}"
    parts = [workspace.dataset.name, config.preset or "default", config.method.name, name]
    return DEFAULT_RUNS.joinpath(*parts)


def _no_diagnosis(run: Run) -> UserError:
    return UserError(
        "The run is finished, and was not diagnosed",
        path=run.folder,
        found="a trained model and no diagnosis",
        expected="a run that still has iterations to do: its weights on the way are not kept",
        do="add --fresh to train again, to the same weights, or choose another -o folder",
    )


def _check_trainable(plan: Plan, method: str) -> None:
    if plan.ignore_value is not None and not method_class(method).partial_labels:
        raise UserError(
            f"The method {method} does not say that it leaves out voxels that are not annotated",
            found=f"a data set with the label value {plan.ignore_value} to ignore",
            expected="a method with partial_labels = True, as all that come with semivox",
            do="choose another method; or use Batch.counted in its losses, then set partial_labels",
        )


@dataclass(frozen=True)
class _Training:
    """One run: everything that `fit` needs, built from the resolved settings."""

    workspace: Workspace
    split: Split
    plan: Plan
    config: Config

    def run(self, run: Run, *, bar: bool, diagnose: bool) -> dict[str, Any]:
        started = time.monotonic()
        method = self._method()
        config = self._with_iterations(method, run)
        run.start(config)
        save_splits(run.folder / "splits.json", [self.split])
        save_plan(self.plan, run.folder / "plans.json")
        result = fit(
            method,
            self._loaders(method, config.train.iterations),
            config.train,
            run.folder,
            validate=self._validator(),
            fresh=False,
            progress=bar,
            diagnosis=self._diagnosis(method, run) if diagnose else None,
        )
        chosen = self._select(method, result, run)
        save_model(
            method,
            run.folder,
            method_name=config.method.name,
            options=config.method.options,
            net=self._net(),
            plan=self.plan,
            extra={"checkpoint": chosen, "predict": config.predict.model_dump(mode="json")},
        )
        return {
            "iterations": result.iterations,
            "seconds_training": round(result.seconds, 1),
            "seconds_total": round(time.monotonic() - started, 1),
            "checkpoint": chosen,
            "best": result.best,
            "labeled": list(self.split.labeled),
            "split": self.split.how,
            "parameters": sum(parameter.numel() for parameter in method.parameters()),
        }

    def _net(self) -> dict[str, Any]:
        return {
            "in_channels": len(self.plan.channels),
            "num_classes": len(self.plan.class_names),
            **self.config.net.model_dump(),
        }

    def _method(self) -> Method:
        torch.manual_seed(self.config.train.seed)
        method = create(self.config.method.name, self.config.method.options, NetFactory(**self._net()))
        if method.uses_unlabeled and not self.split.unlabeled:
            raise UserError(
                f"The method {self.config.method.name} learns from unlabeled scans, but there are none",
                found=f"{len(self.split.labeled)} labeled, 0 unlabeled cases",
                expected="at least one scan without a label, or fewer labels asked for",
                do="use --method supervised, or --labeled N with N smaller than the number of labels",
            )
        return method

    def _sizes(self, method: Method) -> dict[str, int]:
        """Patches a step of each stream."""
        labeled, unlabeled = method.batch
        settings = self.config.train
        return {
            "batch_labeled": labeled if settings.batch_labeled is None else settings.batch_labeled,
            "batch_unlabeled": unlabeled if settings.batch_unlabeled is None else settings.batch_unlabeled,
        }

    def _diagnosis(self, method: Method, run: Run) -> Diagnosis:
        return make_diagnosis(
            self.workspace,
            self.split,
            self.plan,
            run.diagnosis_file,
            batch=sum(self._sizes(method).values()),
            title=f"{self.config.method.name} on {self.workspace.dataset.name}",
        )

    def _loaders(
        self, method: Method, iterations: int
    ) -> Callable[[int, int, int], dict[str, DataLoader[Any]]]:
        settings, sizes = self.config.train, self._sizes(method)

        def make(start: int, rank: int, world: int) -> dict[str, DataLoader[Any]]:
            return build_loaders(
                self.workspace.store,
                self.split,
                self.plan,
                settings,
                **sizes,
                iterations=iterations,
                start=start,
                rank=rank,
                world=world,
                strong_view=method.strong_view,
            )

        return make

    def _validator(self) -> Callable[[Method, torch.device], dict[str, float]] | None:
        if not self.split.val:
            return None
        return make_validator(self.workspace.store, self.split.val, self.plan, self.config.predict)

    def _with_iterations(self, method: Method, run: Run) -> Config:
        """The settings with `iterations` found from the time budget, unless the run has them already."""
        settings = self.config.train
        if settings.budget_s is None or run.config_file.exists():
            return self.config
        started = time.monotonic()
        step_s = probe(method, self._loaders(method, settings.iterations), settings)
        validation_s = self._time_validation(method)
        if settings.validate_every is not None:  # as many validations as the steps will ask for
            step_s, validation_s = step_s + validation_s / settings.validate_every, 0.0
        iterations = iterations_for(
            settings.budget_s,
            step_s,
            validation_s=validation_s,
            validations=VALIDATIONS,
            overhead_s=time.monotonic() - started + STARTUP_S,
        )
        return self.config.model_copy(
            update={"train": settings.model_copy(update={"iterations": iterations})}
        )

    def _time_validation(self, method: Method) -> float:
        validate = self._validator()
        if validate is None:
            return 0.0
        started = time.monotonic()
        was_training = method.training
        method.eval()
        with torch.no_grad():
            validate(method, torch.device("cpu"))
        method.train(was_training)
        return time.monotonic() - started

    def _select(self, method: Method, result: FitResult, run: Run) -> str:
        """Load the checkpoint that is the result; returns a description of the choice."""
        if self.config.train.selection == "val" and result.best is not None:
            load_weights(best_path(run.folder), method)
            return f"best on validation cases (iteration {result.best['iteration']})"
        return "last"


def overridden(config: Config, sections: Mapping[str, Mapping[str, Any]]) -> Config:
    """A copy of `config` with some fields of its sections replaced."""
    return config.model_copy(
        update={
            name: getattr(config, name).model_copy(update=dict(fields)) for name, fields in sections.items()
        }
    )
