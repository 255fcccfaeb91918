"""Segmentations of a trained model: their scores, other formats, and which scans to annotate next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semivox.api.arguments import (
    AnyPath,
    Anything,
    NotNegative,
    Texts,
    class_values,
    loaded_model,
    needed,
    optional,
    raw_folder,
    verb,
)
from semivox.errors import UserError
from semivox.progress import ProgressFactory, no_progress
from semivox.settings import Device, Seed, Share, Workers

if TYPE_CHECKING:
    import pandas as pd

    from semivox.datasets.dataset import Dataset
    from semivox.reporting.page.notebook import PlottedPrediction


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

    For several calls load the model once: `model` may be what `semivox.inference.model.load_model` returns.

    Args:
        model: a run folder; several, e.g. the folds of a cross-validation, whose probabilities are averaged.
        source: one scan, or a folder (`CASE.nii.gz`, or `CASE_0000.nii.gz` for each channel), of NIfTI, NRRD
            or MetaImage; or a DICOM series, or a folder of such folders.
        out: folder for `CASE.nii.gz`.
        config: changes of the settings, e.g. `{"overlap": 0.25, "tta": True}`; default: as the model was
            trained.
        save_probabilities: also write `CASE.npz` (classes first, float16).
        save_members: also write the segmentation of each network.
        save_uncertainty: also write `CASE_uncertainty.nii.gz`, the entropy, 0 to 1; with several networks,
            runs or views also `CASE_disagreement.nii.gz`, the part of it in which they contradict each other.
        overwrite: replace predictions of another model, other settings or another scan.
        trust_image_geometry: accept channels whose affines disagree; the first one's counts.
        series: DICOM series to take from each folder: its number, description or UID.
        flag_share: share of the scans in the output folder that `quality.csv` flags, those with the lowest
            predicted Dice; scans with an alarm, such as a missing class, are always flagged.
        dicom_seg: also write `CASE.seg.dcm`; needs the extra `dicom`.
        segment_codes: YAML or JSON file with the codes of the classes in it.
        device: auto, cpu, gpu or cuda:1.

    Returns:
        The files written. `quality.csv` beside them predicts the Dice of each, the doubtful ones first.
    """
    from semivox.export.dicom_seg import dicom_seg_writer
    from semivox.inference.predict import predict_files
    from semivox.manifest import Manifest

    if segment_codes is not None and not dicom_seg:
        raise UserError("--segment-codes are for DICOM-SEG", do="add --dicom-seg")
    loaded, window = loaded_model(model, device, config)
    with progress("predict") as report:
        written = predict_files(
            loaded, Path(source), Path(out), window,
            save_probabilities=save_probabilities, save_members=save_members,
            save_uncertainty=save_uncertainty, overwrite=overwrite,
            trust_image_geometry=trust_image_geometry, series=series, flag_share=flag_share,
            finisher=dicom_seg_writer(optional(segment_codes)) if dicom_seg else None, progress=report,
        )  # fmt: skip
    Manifest(Path(out)).report("predict", model=loaded.digest, source=str(source), cases=len(written))
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

    loaded, window = loaded_model(model, device, config)
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
    from semivox.manifest import Manifest

    if (data is None) == (references is None):
        found = None if data is None else f"{data} and {references}"
        do = "add --data FOLDER or --references FOLDER"
        raise UserError("References are named twice, or not at all", found, "one folder", do)
    if cases == "test" and split_file is not None:
        raise UserError("A split file names validation cases", "cases: test", "cases: val", "add --cases val")
    if references is not None and cases != "test":
        do = "leave out --cases, or add --data FOLDER in place of the references"
        raise UserError("Only the cases of a data set are told apart", f"cases: {cases}", "cases: test", do)
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
    Manifest(target).report("evaluate", cases=len(files), profile=profile)
    return table


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
        seed: of the order of `random`.
        config: as for `predict`.
        device: auto, cpu, gpu or cuda:1.

    Returns:
        One row a scan, the most useful first.
    """
    from semivox.datasets.dataset import open_dataset
    from semivox.inference.rank import rank as run
    from semivox.reporting.planes import draw_sheet

    folder = raw_folder(data)
    loaded, window = loaded_model(model, device, config)
    first = model[0] if isinstance(model, (list, tuple)) else model
    title = f"{loaded.plan.dataset}: scans to annotate next, by {by}"
    draw = partial(draw_sheet, title, loaded.plan.class_names)
    return run(
        loaded, needed(first, "model"), open_dataset(folder), Path(out), by=by, seed=seed,
        config=window, draw=draw, progress=progress,
    )  # fmt: skip


@verb
def pseudo_label(
    model: AnyPath,
    data: AnyPath,
    out: AnyPath,
    *,
    config: Anything = None,
    overwrite: bool = False,
    device: Device = "auto",
    progress: ProgressFactory = no_progress,
) -> Dataset:
    """Write the model's data set as nnU-Net raw, with predictions as labels of unlabeled cases.

    Args:
        model: a run folder.
        data: the data set that the model was trained on, or a workspace of it.
        out: the new data set, e.g. `nnUNet_raw/Dataset501_Name`.
        config, overwrite, device: as for `predict`.
    """
    from semivox.export.pseudo_label import pseudo_label as run

    folder = raw_folder(data)
    loaded, window = loaded_model(model, device, config)
    return run(Path(model), loaded, folder, Path(out), window, progress, overwrite=overwrite)


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
