"""One training run: check the settings, put the parts together, train, write the weights for inference."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semivox.config import Config, TrainConfig, overridden
from semivox.datasets.splits import Split, save_splits
from semivox.errors import UserError
from semivox.files import locked
from semivox.hardware import resolve_device
from semivox.inference.calibrate import calibrated
from semivox.inference.model import save_model, start_from
from semivox.losses.schedules import Stage, make_stages
from semivox.methods import create, method_class
from semivox.methods.base import Method
from semivox.methods.cost import check_patch, patch_divisor, without_memory
from semivox.nets import NetFactory
from semivox.nets.cpu import kept
from semivox.patches.loaders import build_loaders
from semivox.preprocessing.plan import Plan, save_plan
from semivox.preprocessing.store import Store
from semivox.preprocessing.workspace import Workspace
from semivox.run import GROWING, Run
from semivox.training.checkpoints import best_path, last_path, load_weights
from semivox.training.diagnosis import NOTICE, Draw, make_diagnosis, require_hidden_labels
from semivox.training.estimate import Costs, case_seconds, iterations_for, mean_costs, probe
from semivox.training.fabric import resolve_precision
from semivox.training.logs import Validate
from semivox.training.loop import FitResult, MakeLoaders, fit
from semivox.training.validation import Sheet, Teacher, Validator, pseudo_folder

STARTUP_S = 2.0  # first batches, weights for inference
PROBE_STEPS, PROBE_SHARE = 40, 0.04  # of the budget's time at most
Pseudo = Callable[[int], Store]  # the pseudo-labels that a stage learns from


def check(config: Config) -> None:
    """Refuse settings that no run can have, before any scan is opened.

    Raises:
        UserError: unknown method, option, network or device, one that does not fit the others, a batch
            without patches that the method needs, a patch that is too small.
    """
    resolve_precision(config.train.precision, resolve_device(config.train.device))
    kind = method_class(config.method.name)
    labeled, unlabeled = batch_sizes(config)
    if not labeled or (kind.batch[1] and not unlabeled):
        found = f"{labeled} labeled and {unlabeled} unlabeled patches a step"
        wanted = f"labeled patches{', and unlabeled ones for ' + config.method.name if kind.batch[1] else ''}"
        do = "change method.batch, or train.batch_labeled and train.batch_unlabeled"
        raise UserError("The batch is impossible", found, wanted, do)
    net = NetFactory(1, 2, patch=config.plan.patch, **config.net.shared())
    method = without_memory(config.method.name, config.method.options, net)
    if config.plan.patch is not None and config.net.strides == "published":
        check_patch(method, config.plan.patch, labeled + unlabeled, planned=False)


def labels_alone(config: Config) -> Config:
    """Return the settings for data without unlabeled cases: some methods leave them to another one."""
    alone = method_class(config.method.name).without_unlabeled
    if alone is None:
        return config
    options = {name: value for name, value in config.method.options.items() if name != "rounds"}
    return overridden(config, {"method": {"name": alone, "options": options}})


def train_run(
    workspace: Workspace,
    split: Split,
    plan: Plan,
    config: Config,
    folder: Path,
    *,
    fresh: bool = False,
    extend: bool = False,
    diagnose: bool = False,
    draw: Draw = lambda table, subtitle: None,
    sheet: Sheet | None = None,
    bar: bool = False,
) -> Path:
    """Train a model on prepared scans; the same call resumes an interrupted run and leaves a finished one.

    Returns the run folder, with the weights for `predict`.

    Args:
        fresh: delete an earlier run in that folder first.
        extend: train a run for more iterations than it was begun with, on the longer schedule.
        diagnose: compare pseudo-labels with labels that training does not see, in
            `diagnosis/diagnosis.csv`; the trained weights stay the same.
        draw: draws that table beside it, with the given subtitle.
        sheet: draws pseudo-labels in `pseudo/cases.png`.
        bar: show the progress.

    Raises:
        UserError: a run begun with other settings or data, or that another process is writing.
    """
    plan = trainable(plan, config)
    if not split.unlabeled and (alone := labels_alone(config)) != config:
        config = alone
        print(f"no case is unlabeled: training with {config.method.name}", file=sys.stderr)
    if diagnose:
        require_hidden_labels(workspace.dataset, split)
    run, made_from = Run(folder), workspace.made_from(split, plan)
    if fresh and (init := config.train.init) and Path(init).resolve() == folder.resolve():
        what, do = "--fresh would delete the run to start from (--init)", "choose another -o folder"
        raise UserError(what, do=do, path=folder)
    with locked(folder):
        if fresh:
            run.manifest.remove()
        config = run.resume_config(config, made_from, extend=extend)
        finished = run.is_trained and not run.is_extended_by(config)
        if finished and diagnose and not run.diagnosis_file.exists():
            wanted = "a run that still has iterations to do: its weights on the way are not stored"
            do = "add --fresh to train again, to the same weights, or choose another -o folder"
            raise UserError("The run is finished, and was not diagnosed", None, wanted, do, run.folder)
        if not finished:
            assembly = Assembly(workspace, split, plan, config)
            facts = assembly.train(run, made_from, bar=bar, draw=draw if diagnose else None, sheet=sheet)
            if run.diagnosis_file.exists():
                facts |= {"diagnosed": True, "diagnosis": NOTICE}
            run.manifest.report("train", **facts)
    return folder


@kept()
def step_seconds(
    workspace: Workspace, split: Split, plan: Plan, config: Config, *, steps: int = 8, limit_s: float = 30.0
) -> float:
    """Measure the time of one step (see `semivox.training.estimate.probe`); nothing is written."""
    try:
        assembly = Assembly(workspace, split, trainable(plan, config), config)
        method = assembly.method()
        costs = assembly.costs(method, steps=steps, limit_s=limit_s)
        return mean_costs(costs, method, assembly.config.train.iterations).step_s
    finally:
        torch.cuda.empty_cache()  # the run itself may happen in another process


def batch_sizes(config: Config) -> tuple[int, int]:
    """Labeled and unlabeled patches a step: `train.batch_*`, else `method.batch`, else the method's own."""
    own = config.method.batch or method_class(config.method.name).batch
    asked = (config.train.batch_labeled, config.train.batch_unlabeled)
    labeled, unlabeled = (size if given is None else given for given, size in zip(asked, own, strict=True))
    return labeled, unlabeled


def trainable(plan: Plan, config: Config) -> Plan:
    """Refuse labels that the method cannot use; return the plan with a patch that its networks can take."""
    kind, options = config.method.name, config.method.options
    if plan.ignore_value is not None and not method_class(kind).partial_labels:
        found = f"a data set with the label value {plan.ignore_value} to ignore"
        do = "choose another method; or use Batch.valid in its losses, then set partial_labels = True"
        raise UserError(f"The method {kind} cannot leave out voxels that are not annotated", found, do=do)
    method = without_memory(kind, options, NetFactory(**net_sizes(plan, config)))
    check_patch(method, plan.patch, sum(batch_sizes(config)))
    return plan.fitted(patch_divisor(method))


def net_sizes(plan: Plan, config: Config) -> dict[str, Any]:
    """Return what a `NetFactory` needs to know to build the networks of a run."""
    grid = {name: getattr(plan, name) for name in ("stem", "strides", "patch", "spacing_mm")}
    sizes = {"in_channels": len(plan.channels), "num_classes": len(plan.class_names)}
    return {**sizes, **grid, **config.net.shared()}


@dataclass(frozen=True)
class Assembly:
    """The parts of one run, built from the resolved settings."""

    workspace: Workspace
    split: Split
    plan: Plan
    config: Config

    @kept()
    def train(
        self, run: Run, made_from: Any, *, bar: bool, draw: Draw | None, sheet: Sheet | None
    ) -> dict[str, Any]:
        """Train, write the weights for inference, return what `run_report.json` records."""
        started, method = time.monotonic(), self.method()
        config = self._with_iterations(method, run)
        if (init := config.train.init) and not last_path(run.folder).is_file():
            start_from(method, Path(init), self.plan)
        run.start(config, made_from)
        save_splits(run.folder / "splits.json", [self.split])
        save_plan(self.plan, run.folder / "plans.json")
        diagnosis = None
        if draw is not None:
            path, batch = run.diagnosis_file, sum(batch_sizes(config))
            diagnosis = make_diagnosis(self.workspace, self.split, self.plan, path, batch=batch, draw=draw)
        pseudo, store = run.folder / "pseudo", self.workspace.store
        teach = Teacher(store, self.split.unlabeled, self.plan, config.predict, pseudo, sheet)
        loaders = self.loaders(method, config.train, lambda stage: Store(pseudo_folder(pseudo, stage)))
        probed_s = time.monotonic() - started
        with run.manifest.adopting(*GROWING):
            result = fit(
                method, loaders, config.train, run.folder, validate=self.validator(), bar=bar,
                teach=teach if method.soft_labels else None, diagnosis=diagnosis,
            )  # fmt: skip
        if bar and (budget := config.train.budget_s) is not None:
            spent = probed_s + result.seconds
            text = f"took {spent:.0f} s of a budget of {budget:.0f} s ({100 * (spent / budget - 1):+.1f} %)"
            print(text, file=sys.stderr)
        chosen = self._save(method, result, config, run)
        return {
            "iterations": result.iterations, "seconds_training": round(result.seconds, 1),
            "seconds_total": round(time.monotonic() - started, 1), "checkpoint": chosen, "best": result.best,
            "labeled": list(self.split.labeled), "split": self.split.how,
            "parameters": sum(parameter.numel() for parameter in method.parameters()),
        }  # fmt: skip

    def method(self) -> Method:
        """Build the method with its initial weights."""
        torch.manual_seed(self.config.train.seed)
        name, options = self.config.method.name, self.config.method.options
        method = create(name, options, NetFactory(**net_sizes(self.plan, self.config)))
        if method.batch[1] and not self.split.unlabeled:
            what = f"The method {name} learns from unlabeled scans, but there are none"
            do = "use --method supervised, or --labeled N with N smaller than the number of labels"
            raise UserError(what, f"{len(self.split.labeled)} labeled, 0 unlabeled cases", do=do)
        return method

    def loaders(self, method: Method, settings: TrainConfig, pseudo: Pseudo) -> MakeLoaders:
        """Return what makes the loaders of a stage; `pseudo` gives its pseudo-labels."""
        labeled, unlabeled = batch_sizes(self.config)

        def make(stage: Stage, start: int, rank: int, world: int) -> dict[str, Any]:
            return build_loaders(
                self.workspace.store, self.split, self.plan, settings, batch_labeled=labeled,
                batch_unlabeled=0 if method.staged and not stage.index else unlabeled,
                iterations=stage.stop, start=start, rank=rank, world=world,
                soft_labels=method.soft_labels,
                pseudo=pseudo(stage.index) if stage.index and method.soft_labels else None,
            )  # fmt: skip

        return make

    def validator(self) -> Validate | None:
        """Return what scores the validation cases, if there are any."""
        if not self.split.val:
            return None
        return Validator(self.workspace.store, self.split.val, self.plan, self.config.predict)

    def costs(self, method: Method, *, steps: int, limit_s: float, **beside: Any) -> list[Costs]:
        """Probe each stage of the run, with labels in the place of pseudo-labels."""
        train = self.config.train
        stages = make_stages(method.stages(train.iterations), train.iterations)
        taught = self.split.model_copy(update={"unlabeled": self.split.labeled})
        found: list[Costs] = []
        for stage in stages:
            split = taught if stage.index else self.split
            probed = Assembly(self.workspace, split, self.plan, self.config)
            loaders = probed.loaders(method, train, lambda _: self.workspace.store)
            few, short, other = -(-steps // len(stages)), limit_s / len(stages), {} if found else beside
            found.append(probe(method, loaders, train, steps=few, limit_s=short, stage=stage, **other))
        return found

    def _with_iterations(self, method: Method, run: Run) -> Config:
        """Return the settings with the `iterations` that fit the time budget, or that the run has already."""
        settings = self.config.train
        if settings.budget_s is None or (run.is_begun and not run.is_extended_by(self.config)):
            return self.config
        started, limit_s = time.monotonic(), PROBE_SHARE * settings.budget_s
        beside = {"validate": self.validator(), "folder": run.folder}
        found = self.costs(method, steps=PROBE_STEPS, limit_s=limit_s, **beside)
        batch = sum(batch_sizes(self.config))
        spent_s, iterations = time.monotonic() - started + STARTUP_S, settings.iterations
        for _ in range(3):  # the shares of the stages depend on the number of iterations
            costs = mean_costs(found, method, iterations)
            rounds = len(method.stages(iterations)) - 1 if method.soft_labels else 0
            case_s = case_seconds(self.config, self.plan, method, costs.step_s, batch)
            once_s = spent_s + costs.validation_s + rounds * len(self.split.unlabeled) * case_s
            iterations = iterations_for(settings, costs, overhead_s=once_s)
        changed = settings.model_copy(update={"iterations": iterations})
        return self.config.model_copy(update={"train": changed})

    def _save(self, method: Method, result: FitResult, config: Config, run: Run) -> str:
        """Write the weights that are the result; return why it is these."""
        chosen = "last"
        if config.train.selection == "val" and result.best is not None:
            best = load_weights(best_path(run.folder), method)
            chosen = f"best on validation cases (iteration {best.iteration})"
        calibration = calibrated(method, self.plan, self.workspace.store, self.split, config)
        about = {"predict": config.predict.model_dump(mode="json"), "calibration": calibration}
        save_model(
            method, run.folder, method_name=config.method.name, options=config.method.options,
            net=net_sizes(self.plan, self.config), plan=self.plan, extra={"checkpoint": chosen, **about},
        )  # fmt: skip
        return chosen
