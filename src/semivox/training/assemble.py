"""One training run: networks, loaders, validator and iterations from the resolved settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from semivox.config import Config, TrainConfig
from semivox.datasets.splits import Split, save_splits
from semivox.errors import UserError
from semivox.inference.model import save_model
from semivox.io.extent import Triple
from semivox.methods import create, method_class
from semivox.methods.base import Method
from semivox.nets import NetFactory
from semivox.nets.heap import kept
from semivox.patches.loaders import build_loaders
from semivox.patches.patch_sizes import patch_sizes
from semivox.preprocessing.plan import Plan, save_plan
from semivox.preprocessing.workspace import Workspace
from semivox.run import Run
from semivox.training.budget import Costs, iterations_for, probe
from semivox.training.checkpoints import best_path, load_weights
from semivox.training.diagnose import make_diagnosis
from semivox.training.trainer import FitResult, fit
from semivox.training.validation import make_validator

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from semivox.training.diagnosis import Diagnosis

VALIDATIONS = 10  # a run, when `validate_every` is not set
STARTUP_S = 2.0  # first batches, weights for inference
PROBE_STEPS, PROBE_SHARE = 40, 0.04  # of the budget's time at most


def batch_sizes(config: Config) -> tuple[int, int]:
    """Labeled and unlabeled patches a step: `train.batch_*`, else `method.batch`, else the method's own."""
    own = config.method.batch or method_class(config.method.name).batch
    asked = (config.train.batch_labeled, config.train.batch_unlabeled)
    labeled, unlabeled = (size if given is None else given for given, size in zip(asked, own, strict=True))
    return labeled, unlabeled


@dataclass(frozen=True)
class Training:
    """One run: everything that `fit` needs, built from the resolved settings."""

    workspace: Workspace
    split: Split
    plan: Plan
    config: Config

    @kept()
    def run(self, run: Run, *, bar: bool, diagnose: bool) -> dict[str, Any]:
        started = time.monotonic()
        method = self._method()
        config = self._with_iterations(method, run)
        run.start(config)
        save_splits(run.folder / "splits.json", [self.split])
        save_plan(self.plan, run.folder / "plans.json")
        result = fit(
            method,
            self._loaders(method, config.train),
            config.train,
            run.folder,
            validate=self._validator(config.train),
            fresh=False,
            progress=bar,
            diagnosis=self._diagnosis(method, run) if diagnose else None,
            spent_s=time.monotonic() - started,
        )
        patch, chosen = self._select(method, result, config.train, run)
        save_model(
            method,
            run.folder,
            method_name=config.method.name,
            options=config.method.options,
            net=self._net(),
            plan=self._plan_of_weights(patch),
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

    @kept()
    def step_seconds(self, *, steps: int = 8, limit_s: float = 30.0) -> float:
        """Measure the time of one step (see `engine.budget.probe`); nothing is written."""
        method = self._method()
        try:
            return self._costs(method, steps=steps, limit_s=limit_s).step_s
        finally:
            torch.cuda.empty_cache()  # the run itself may happen in another process

    def _plan_of_weights(self, patch: Triple) -> Plan:
        """The plan with the patch that the weights saw last: windows of predictions are as large."""
        if patch == self.plan.patch:
            return self.plan
        reasons = self.plan.reasons | {"patch": "The final patch, which these weights were last trained on."}
        return self.plan.model_copy(update={"patch": patch, "reasons": reasons})

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

    def _diagnosis(self, method: Method, run: Run) -> Diagnosis:
        return make_diagnosis(
            self.workspace,
            self.split,
            self.plan,
            run.diagnosis_file,
            batch=sum(batch_sizes(self.config)),
            title=f"{self.config.method.name} on {self.workspace.dataset.name}",
        )

    def _loaders(
        self, method: Method, settings: TrainConfig
    ) -> Callable[[int, int, int], dict[str, DataLoader[Any]]]:
        labeled, unlabeled = batch_sizes(self.config)

        def make(start: int, rank: int, world: int) -> dict[str, DataLoader[Any]]:
            return build_loaders(
                self.workspace.store,
                self.split,
                self.plan,
                settings,
                batch_labeled=labeled,
                batch_unlabeled=unlabeled,
                iterations=settings.iterations,
                start=start,
                rank=rank,
                world=world,
                strong_view=method.strong_view,
            )

        return make

    def _validator(
        self, settings: TrainConfig
    ) -> Callable[[Method, torch.device, int], dict[str, float]] | None:
        if not self.split.val:
            return None
        sizes = patch_sizes(self.plan, settings, settings.iterations)
        return make_validator(self.workspace.store, self.split.val, self.plan, sizes, self.config.predict)

    def _with_iterations(self, method: Method, run: Run) -> Config:
        """The settings with `iterations` found from the time budget, unless the run has them already."""
        settings = self.config.train
        if run.config_file.exists() and not run.is_extended_by(self.config):
            return self.config
        if settings.budget_s is None:
            if settings.final_share:  # a lack of memory shows now, not after most of the run
                self._part(method, 1.0, steps=2, limit_s=0.0)
            return self.config
        started = time.monotonic()
        costs = self._costs(
            method,
            steps=PROBE_STEPS,
            limit_s=PROBE_SHARE * settings.budget_s,
            validate=self._validator(settings),
            folder=run.folder,
        )
        overhead_s = time.monotonic() - started + STARTUP_S
        iterations = iterations_for(settings, costs, validations=VALIDATIONS, overhead_s=overhead_s)
        return self.config.model_copy(
            update={"train": settings.model_copy(update={"iterations": iterations})}
        )

    def _costs(self, method: Method, *, steps: int, limit_s: float, **beside: Any) -> Costs:
        """Probe the run; where the size of its patches changes, both parts, with the mean of their steps."""
        share = self.config.train.final_share
        if share in (0.0, 1.0):
            return self._part(method, share, steps=steps, limit_s=limit_s, **beside)
        halves = {"steps": (steps + 1) // 2, "limit_s": limit_s / 2}
        first, final = self._part(method, 0.0, **halves, **beside), self._part(method, 1.0, **halves)
        return first._replace(step_s=(1 - share) * first.step_s + share * final.step_s)

    def _part(self, method: Method, final_share: float, **settings: Any) -> Costs:
        """Probe steps on the final patches (1) or on those before (0)."""
        train = self.config.train.model_copy(update={"final_share": final_share})
        return probe(method, self._loaders(method, train), train, **settings)

    def _select(
        self, method: Method, result: FitResult, settings: TrainConfig, run: Run
    ) -> tuple[Triple, str]:
        """Load the checkpoint that is the result; returns the patch it was last trained on, and why this one.

        The best weights may be older than an extension of the run, which has another schedule.
        """
        if settings.selection == "val" and result.best is not None:
            best = load_weights(best_path(run.folder), method)
            settings = settings.model_copy(
                update={name: best.run.get(name, 0) for name in ("iterations", "final_share")}
            )
            return self._patch(
                settings, best.iteration
            ), f"best on validation cases (iteration {best.iteration})"
        return self._patch(settings, result.iterations), "last"

    def _patch(self, settings: TrainConfig, iteration: int) -> Triple:
        return patch_sizes(self.plan, settings, settings.iterations).at(iteration - 1)
