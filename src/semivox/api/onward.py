"""Beyond segmentations: other formats, and which scans to annotate next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semivox.api.arguments import (
    AnyPath,
    Anything,
    Texts,
    class_values,
    loaded_model,
    optional,
    prediction_settings,
    raw_folder,
    verb,
)
from semivox.progress import ProgressFactory, no_progress
from semivox.settings import Device, Seed

if TYPE_CHECKING:
    import pandas as pd

    from semivox.datasets.dataset import Dataset


@verb
def rank(
    model: Anything,
    data: AnyPath,
    out: AnyPath = "rank",
    *,
    by: Literal["uncertainty", "diversity", "both", "random"] = "both",
    seed: Seed = 0,
    config: Anything = None,
    device: Device = "auto",
    progress: ProgressFactory = no_progress,
) -> pd.DataFrame:
    """Rank unlabeled scans by how much a model should gain from their annotation; no label is opened.

    Writes `rank.csv`, and `rank.png` with the first twelve and what the model makes of them.

    Args:
        model: a run folder, or several of one split.
        data: the data set that the model was trained on, or a workspace of it.
        out: folder for `rank.csv` and `rank.png`.
        by: `uncertainty`: the lowest predicted Dice first; `diversity`: the scan farthest from all that are
            labeled or ranked before it, in the features of the network; `both`: their product; `random`.
        seed: of `random`.
        config, device: as for `predict`.

    Returns:
        One row a scan, the most useful first.
    """
    from semivox.datasets.dataset import open_dataset
    from semivox.inference.rank import rank as run
    from semivox.reporting.drawing import sheet_drawer

    folder = raw_folder(data)
    loaded = loaded_model(model, device)
    first = model[0] if isinstance(model, (list, tuple)) else model
    draw = sheet_drawer(f"{loaded.plan.dataset}: scans to annotate next, by {by}", loaded.plan.class_names)
    return run(
        loaded, optional(first, "model") or Path(), open_dataset(folder), Path(out), by=by, seed=seed,
        config=prediction_settings(loaded, config), draw=draw, progress=progress,
    )  # fmt: skip


@verb
def pseudo_label(
    model: AnyPath,
    data: AnyPath,
    out: AnyPath,
    *,
    config: Anything = None,
    device: Device = "auto",
    progress: ProgressFactory = no_progress,
) -> Dataset:
    """Write the model's data set as nnU-Net raw, with predictions as labels of unlabeled cases.

    Args:
        model: a run folder.
        data: the data set that the model was trained on, or a workspace of it.
        out: the new data set, e.g. `nnUNet_raw/Dataset501_Name`.
        config, device: as for `predict`.
    """
    from semivox.export.pseudo_label import pseudo_label as run

    folder, loaded = raw_folder(data), loaded_model(model, device)
    return run(Path(model), loaded, folder, Path(out), prediction_settings(loaded, config), progress)


@verb
def export_dicom_seg(
    segmentation: AnyPath,
    dicom: AnyPath,
    out: AnyPath,
    *,
    series: str | None = None,
    classes: Mapping[str, int] | Texts | None = None,
    codes: AnyPath | None = None,
    origin: Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"] | None = None,
) -> Path:
    """Write a label map as a DICOM-SEG object that refers to the series it was drawn on.

    Args:
        segmentation: a label map (NIfTI, NRRD, MetaImage) on the voxels of the series.
        dicom: the folder of the series, or a multi-frame file.
        out: a name ending in `.dcm`.
        series: number, description or UID, if the folder holds several.
        classes: value of each class; default: those in `semivox.json` beside the segmentation.
        codes: YAML or JSON file with the codes of the classes.
        origin: who made it; default: AUTOMATIC if `semivox.json` lies beside it.
    """
    from semivox.export.dicom_seg import export_dicom_seg as run

    return run(
        Path(segmentation), Path(dicom), Path(out), series=series, classes=class_values(classes),
        codes=optional(codes), origin=origin,
    )  # fmt: skip
