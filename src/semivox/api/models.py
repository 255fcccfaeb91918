"""Train a model, predict with it, score its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semivox.api.arguments import (
    AnyPath,
    Anything,
    NotNegative,
    Texts,
    checked,
    loaded_model,
    optional,
    prediction_settings,
    raw_folder,
    settings,
    verb,
)
from semivox.api.reports import TrainedRun, report_after_training
from semivox.errors import UserError
from semivox.progress import ProgressFactory, no_progress
from semivox.settings import Config, Device, Share, Workers

if TYPE_CHECKING:
    import pandas as pd

    from semivox.datasets.splits import Split
    from semivox.preprocessing.workspace import Workspace
    from semivox.reporting.page.notebook import PlottedPrediction


@verb
def train(
    data: AnyPath,
    *,
    method: str | None = None,
    labeled: int | float | Literal["all"] | None = None,
    preset: str | None = None,
    config: Anything = None,
    out: AnyPath | None = None,
    work: AnyPath | None = None,
    fresh: bool = False,
    extend: bool = False,
    diagnose: bool = False,
    bar: bool = False,
    progress: ProgressFactory = no_progress,
) -> TrainedRun:
    """Train a model; plan and prepare what is missing. The same call resumes an interrupted run.

    Args:
        data: a raw folder (nnU-Net raw or MSD layout) or a workspace.
        method: registered name, see `semivox.methods()`.
        labeled: number of labels to use, a fraction below 1, or `all`.
        out: the run folder; default `runs/DATASET/PRESET/METHOD/...`.
        extend: train a finished run for more iterations, on the longer schedule.
        diagnose: compare pseudo-labels with labels that training does not see; the weights stay the same.
        bar: show the training progress bar.

    Returns:
        The run folder, with `model.safetensors` and `model.yaml` for `predict`, and, if there are validation
        cases, `report.html`. In a notebook its `show(case)` draws a case.

    Examples:
        >>> run = semivox.train("Heart", method="dual", labeled=8, preset="lite")
    """
    chosen = settings(config, preset, method={"name": method}, split={"labeled": labeled})
    checked(chosen, data, training=True)
    from semivox.preprocessing.workspace import prepare_data
    from semivox.reporting.drawing import diagnosis_drawer, draw_case, sheet_drawer
    from semivox.run import Run
    from semivox.training.runs import train_run

    if out is not None:
        Run(Path(out)).check(chosen, fresh=fresh, extend=extend)
    workers = 2 if chosen.train.workers else 0  # no process at all where none is wanted
    workspace, split, plan = prepare_data(
        Path(data), config=chosen, work=optional(work), workers=workers, on_case=draw_case, progress=progress
    )
    if chosen.train.selection == "val" and not split.val:
        do = "keep some with --val N, or leave out train.selection"
        raise UserError("The checkpoint cannot be chosen by validation", "no validation cases", "some", do)
    finished = train_run(
        workspace, split, plan, chosen, optional(out) or _default_folder(workspace, chosen, split),
        fresh=fresh, extend=extend, diagnose=diagnose,
        draw=diagnosis_drawer(f"{chosen.method.name} on {workspace.dataset.name}"),
        sheet=sheet_drawer(
            f"{workspace.dataset.name}: pseudo-labels, least certain first", plan.class_names, rows=True
        ),
        bar=bar,
    )  # fmt: skip
    if split.val:
        report_after_training(finished, progress)
    return TrainedRun(finished)


@verb
def predict(
    model: Anything,
    source: AnyPath,
    out: AnyPath,
    *,
    config: Anything = None,
    save_probabilities: bool = False,
    save_members: bool = False,
    save_uncertainty: bool = False,
    overwrite: bool = False,
    trust_image_geometry: bool = False,
    series: str | None = None,
    flag_share: Share = 0.2,
    dicom_seg: bool = False,
    segment_codes: AnyPath | None = None,
    device: Device = "auto",
    progress: ProgressFactory = no_progress,
) -> list[Path]:
    """Segment a scan or a folder of scans, each on its own grid, with the data set's label values.

    Args:
        model: a run folder; several, e.g. the folds of a cross-validation, whose probabilities are averaged;
            or a model from `semivox.inference.model.load_model`.
        source: one scan, or a folder (`CASE.nii.gz`, or `CASE_0000.nii.gz` for each channel), of NIfTI, NRRD
            or MetaImage; or a DICOM series, or a folder of such folders.
        out: folder for `CASE.nii.gz`.
        config: changes of the settings, e.g. `{"overlap": 0.25, "tta": True}`; default: as the model was
            trained.
        save_probabilities: also write `CASE.npz` (classes first, float16).
        save_members: also write the segmentation of each network.
        save_uncertainty: also write `CASE_uncertainty.nii.gz`, the entropy, 0 to 1; with several networks,
            runs or views also `CASE_disagreement.nii.gz`, the part of it in which they contradict each other.
        overwrite: replace predictions that another model made.
        trust_image_geometry: accept channels whose affines disagree; the first one's counts.
        series: DICOM series to take from each folder: its number, description or UID.
        flag_share: share of the scans in `out` that `quality.csv` flags, those with the lowest predicted
            Dice; scans with an alarm, such as a missing class, are always flagged.
        dicom_seg: also write `CASE.seg.dcm`; needs the extra `dicom`.
        segment_codes: YAML or JSON file with the codes of the classes in it.
        device: auto, cpu, gpu or cuda:1.

    Returns:
        The files written. `quality.csv` beside them predicts the Dice of each, the doubtful ones first.
    """
    from semivox.export.dicom_seg import dicom_seg_writer
    from semivox.inference.predict import predict_files
    from semivox.manifest import write_manifest

    if segment_codes is not None and not dicom_seg:
        raise UserError("--segment-codes are for DICOM-SEG", do="add --dicom-seg")
    loaded = loaded_model(model, device)
    codes = optional(segment_codes)
    with progress("predict") as report:
        written = predict_files(
            loaded, Path(source), Path(out), prediction_settings(loaded, config),
            save_probabilities=save_probabilities, save_members=save_members,
            save_uncertainty=save_uncertainty, overwrite=overwrite,
            trust_image_geometry=trust_image_geometry, series=series, flag_share=flag_share,
            finisher=dicom_seg_writer(codes) if dicom_seg else None, progress=report,
        )  # fmt: skip
    write_manifest(Path(out), "predict", model=loaded.digest, source=str(source), cases=len(written))
    return written


@verb
def predict_image(
    model: Anything,
    image: Anything,
    *,
    config: Anything = None,
    probabilities: bool = False,
    members: bool = False,
    uncertainty: bool = False,
    device: Device = "auto",
) -> PlottedPrediction:
    """Segment one scan in memory.

    Args:
        model, config, device: as for `predict`.
        image: a path, a nibabel or SimpleITK image, or an array `(X, Y, Z)` or `(C, X, Y, Z)` with its affine
            `(4, 4)` to mm, as `(array, affine)`.
        probabilities, members, uncertainty: return these, too.

    Returns:
        Class indices `(X, Y, Z)` on the image's own grid, with their predicted `quality`; probabilities,
        members and the map of the uncertainty on request. In a notebook its `plot()` draws it.

    Examples:
        label = semivox.predict_image(run, (array, affine)).label
    """
    from semivox.reporting.page.notebook import plotted

    loaded = loaded_model(model, device)
    window = prediction_settings(loaded, config)
    return plotted(
        loaded, image, config=window, probabilities=probabilities, members=members, uncertainty=uncertainty
    )


@verb
def evaluate(
    predictions: AnyPath,
    *,
    data: AnyPath | None = None,
    references: AnyPath | None = None,
    cases: Literal["test", "val"] = "test",
    split_file: AnyPath | None = None,
    out: AnyPath | None = None,
    largest_component: bool = True,
    profile: Literal["semivox", "published"] = "semivox",
    nsd_tolerance_mm: NotNegative = 1.0,
    trust_image_geometry: bool = False,
    regions: Mapping[str, Sequence[int]] | Texts | None = None,
    ignore: int | None = None,
    workers: Workers = 2,
    progress: ProgressFactory = no_progress,
) -> pd.DataFrame:
    """Score a folder of predictions; write `metrics.csv` and `summary.json`.

    Args:
        predictions: folder with `CASE.nii.gz`.
        data: the data set with the reference labels, of its test cases or of a split's validation cases.
        references: instead of `data`, a folder with one reference label a case.
        cases: which cases of `data`.
        split_file: the split that names the validation cases; default: the workspace's.
        out: where the results go; default: the predictions' folder.
        largest_component: also score the largest connected component of each class.
        profile: `published` scores as older papers do (voxel units, failures at distance 0).
        nsd_tolerance_mm: tolerance of the normalised surface Dice.
        trust_image_geometry: compare voxel by voxel although the affines differ.
        regions: unions of classes to score too, `{"core": [1, 4]}` or `["core=1,4"]`; default: as declared.
        ignore: label value of reference voxels that are not annotated; default: as declared.

    Returns:
        One row a case and class.
    """
    from semivox.datasets.declared import parse_regions
    from semivox.evaluation.evaluate import evaluate_folder
    from semivox.evaluation.references import of_dataset, of_folder
    from semivox.manifest import write_manifest

    if (data is None) == (references is None):
        found = None if data is None else f"{data} and {references}"
        do = "add --data FOLDER or --references FOLDER"
        raise UserError("References are named twice, or not at all", found, "one folder", do)
    if cases == "test" and split_file is not None:
        raise UserError("A split file names validation cases", "cases: test", "cases: val", "add --cases val")
    unions = parse_regions(regions) if isinstance(regions, tuple) else regions
    folder, target = Path(predictions), Path(out or predictions)
    if data is not None:
        files, classes = of_dataset(raw_folder(data), cases, optional(split_file))
    else:
        files, classes = of_folder(Path(references or ""), folder)
    with progress("evaluate") as report:
        table = evaluate_folder(
            folder, files, classes.changed(unions, ignore), target, lcc=largest_component, profile=profile,
            nsd_tolerance_mm=nsd_tolerance_mm, trust_image_geometry=trust_image_geometry, workers=workers,
            progress=report,
        )  # fmt: skip
    write_manifest(target, "evaluate", cases=len(files), profile=profile)
    return table


def _default_folder(workspace: Workspace, config: Config, split: Split) -> Path:
    """Return `runs/DATASET/PRESET/METHOD/Nl_foldK_seedS`, in the current folder."""
    name = f"{len(split.labeled)}l_fold{config.split.fold or 0}_seed{config.train.seed}"
    return Path("runs", workspace.dataset.name, config.preset or "default", config.method.name, name)
