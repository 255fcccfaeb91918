"""`plan` and `prepare`: from a folder of scans to a workspace ready for training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semivox.config import Config
from semivox.datasets.splits import Split
from semivox.manifest import write_manifest
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.prepare import prepare as prepare_cases
from semivox.preprocessing.workspace import Workspace, clear_workspace, open_workspace
from semivox.progress import ProgressFactory, no_progress


def plan(
    data: Path | str,
    *,
    config: Config | None = None,
    work: Path | None = None,
    fresh: bool = False,
    workers: int = 0,
    progress: ProgressFactory = no_progress,
) -> tuple[Workspace, Split, Plan]:
    """Make (or read) the split and the plan of a data set.

    Args:
        data: a raw folder (nnU-Net raw or MSD layout) or a workspace.
        config: settings; `config.split` and `config.plan` matter here.
        work: the workspace folder for raw data.
        fresh: forget an earlier plan, split and prepared scans.
        workers: processes that measure the scans; 0 works in this process.
    """
    config = config or Config()
    workspace = open_workspace(Path(data), work=work, preset=config.preset)
    if fresh:
        clear_workspace(workspace)
    split = workspace.split(config.split)
    made = workspace.plan(split, config, progress, workers)
    write_manifest(workspace.folder, "plan", plan=made.model_dump(mode="json", exclude={"fingerprint"}))
    return workspace, split, made


def prepare(
    data: Path | str,
    *,
    config: Config | None = None,
    work: Path | None = None,
    fresh: bool = False,
    workers: int = 2,
    overlays: bool = True,
    progress: ProgressFactory = no_progress,
) -> tuple[Workspace, Split, Plan]:
    """Resample, normalise and store every training scan; resumable.

    Labels are opened for the labeled and the validation cases only. For each case a picture with the label's
    outline is written to `overlays/`.

    Args:
        data, config, work, fresh: as for `plan`.
        workers: processes; 0 works in this process.
        overlays: write the pictures.
    """
    workspace, split, made = plan(
        data, config=config, work=work, fresh=fresh, workers=workers, progress=progress
    )
    on_case = partial(_overlay, workspace.overlays, made.spacing_mm, made.class_names) if overlays else None
    with progress("prepare") as report:
        done = prepare_cases(
            workspace.dataset,
            split,
            made,
            workspace.folder / "store",
            workers=workers,
            on_case=on_case,
            progress=report,
        )
    write_manifest(workspace.folder, "prepare", cases=done, workers=workers)
    return workspace, split, made


def _overlay(
    folder: Path,
    spacing_mm: tuple[float, float, float],
    class_names: tuple[str, ...],
    name: str,
    image: np.ndarray,
    label: np.ndarray | None,
) -> None:
    """Write the picture of one case, in the worker: the command itself starts without matplotlib."""
    from semivox.reporting.overlay import save_overlay

    save_overlay(
        folder / f"{name.replace('/', '_')}.png", image, label, spacing_mm, name=name, class_names=class_names
    )
