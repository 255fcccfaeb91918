"""`train`: whatever is missing of plan and store, then a run, then the weights for inference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semivox.config import Config, load_config
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.methods import method_class
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.ready import prepare
from semivox.preprocessing.workspace import Workspace
from semivox.progress import ProgressFactory, no_progress
from semivox.run import Run, write_manifest
from semivox.training.assemble import Training
from semivox.training.diagnose import NOTICE
from semivox.training.hidden import require_hidden_labels

DEFAULT_RUNS = Path("runs")


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
    extend: bool = False,
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
        extend: let a run that was begun with fewer `train.iterations` go on from its last checkpoint, with
            the learning rate that the longer schedule has there; `train.final_share` may change with it.
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
    config = run.resume_config(config, extend=extend)
    if diagnose and run.is_trained and not run.diagnosis_file.exists():
        raise _no_diagnosis(run)
    if run.is_trained and not run.is_extended_by(config):
        return run.folder
    trained = Training(workspace, split, plan, config).run(run, bar=bar, diagnose=diagnose)
    if run.diagnosis_file.exists():
        trained |= {"diagnosed": True, "diagnosis": NOTICE}
    write_manifest(run.folder, "train", **trained)
    return run.folder


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


def overridden(config: Config, sections: Mapping[str, Mapping[str, Any]]) -> Config:
    """A copy of `config` with some fields of its sections replaced."""
    return config.model_copy(
        update={
            name: getattr(config, name).model_copy(update=dict(fields)) for name, fields in sections.items()
        }
    )
