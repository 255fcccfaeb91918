"""From scans to their segmentations, on the scans' own grids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference.cover import Precision, free_memory, on_working_grid
from semivox.inference.model import LoadedModel
from semivox.inference.outputs import OutputFolder, Wanted, check_name
from semivox.inference.postprocess import postprocessed
from semivox.inference.quality import Judge, Quality
from semivox.inference.sources import Scan, Source, list_scans, read_scan
from semivox.inference.uncertainty import entropy, tempered
from semivox.inference.windows import window_stride
from semivox.io.formats import out_of_memory, shortened_text, too_large
from semivox.io.volume import Volume
from semivox.nets.cpu import kept
from semivox.preprocessing.resample import (
    Grid,
    label_to_source,
    map_to_source,
    probs_to_source,
    to_working_grid,
)

Progress = Callable[[int, int, str, float], Any]


@dataclass(frozen=True)
class Prediction:
    """What a model says about one scan, on the scan's grid.

    Attributes:
        label: (X, Y, Z) uint8 class indices.
        quality: how good it is likely to be.
        probs: (K, X, Y, Z) float32 in [0, 1], summing to 1 over the classes; None unless asked for.
        members: class indices of each network on its own; empty unless asked for.
        member_probs: probabilities of each network; empty unless both are asked for.
        uncertainty: (X, Y, Z) float32, entropy of `probs` as a share of the largest one; None likewise.
    """

    label: NDArray[np.uint8]
    quality: Quality
    probs: NDArray[np.float32] | None = None
    members: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    member_probs: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    uncertainty: NDArray[np.float32] | None = None


def predict_case(
    model: LoadedModel,
    image: Volume,
    config: PredictConfig,
    *,
    precision: Precision = "32",
    probabilities: bool = False,
    members: bool = False,
    uncertainty: bool = False,
) -> Prediction:
    """Segment one scan.

    Without `probabilities`, all classes together exist on the working grid only: on the scan's grid the label
    is made class by class.

    Args:
        model: from `load_model`.
        image: (C, X, Y, Z), any orientation and voxel size.
        config: settings of the prediction.
        precision: arithmetic of the networks; `bf16` only where the hardware has it.
        probabilities: also return probabilities.
        members: also return what each network says on its own, without clean-up, from the same forward
            passes.
        uncertainty: also return the map of the uncertainty.

    Raises:
        UserError: a wrong number of channels, too little memory, or a model that returns NaN.
    """
    _check_image(image, model)
    array, grid = to_working_grid(image, model.plan)
    found = on_working_grid(model, array, config, precision=precision, members=members)
    probs = tempered(found.probs, model.calibration.temperature)
    label, full = _on_source_grid(probs, grid, probabilities)
    if config.postprocess:
        classes = model.plan.class_names
        rules = {classes.index(name): rule for name, rule in model.calibration.postprocess.items()}
        voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
        label = postprocessed(label, rules, voxel_ml)
    pairs = {name: _on_source_grid(values, grid, probabilities) for name, values in found.members.items()}
    return Prediction(
        label,
        _judged(model, found.figures, label),
        full,
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items() if pair[1] is not None},
        map_to_source(entropy(probs), grid) if uncertainty else None,
    )


def _judged(model: LoadedModel, figures: dict[str, float], label: NDArray[np.uint8]) -> Quality:
    known = model.calibration
    names = model.plan.class_names[1:]
    absent = [
        name
        for index, (name, usual) in enumerate(zip(names, known.volumes, strict=False), start=1)
        if usual.always and not (label == index).any()
    ]
    return Judge(known.figures, known.dice).judge(figures, absent)


@kept()
def predict_files(
    model: LoadedModel,
    source: Source,
    out: Path,
    config: PredictConfig,
    *,
    precision: Precision = "32",
    save_probabilities: bool = False,
    save_members: bool = False,
    save_uncertainty: bool = False,
    overwrite: bool = False,
    trust_image_geometry: bool = False,
    finish: Callable[[Scan, Path], Any] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Segment a scan or a folder of scans; one scan is in memory at a time.

    Writes `CASE.nii.gz` (the scan's grid and header, the data set's label values), `semivox.json` (what the
    values mean), `quality.csv` (how good each is likely to be, the doubtful ones first) and `predict.json`
    (which model and settings made what). Scans that this model has already
    segmented with these settings are skipped. A scan that cannot be segmented does not stop the others.

    Args:
        model: from `load_model`.
        source: a file, or a folder with `CASE.nii.gz`, or `CASE_0000.nii.gz`, ... for the channels; a folder
            of DICOM; or the channel files of each scan, by name; see `list_scans`.
        out: folder for the results, not the one of the scans.
        config: settings of the prediction.
        precision: arithmetic of the networks; `bf16` only where the hardware has it.
        save_probabilities: also write `CASE.npz` with `probabilities`, (K, X, Y, Z) float16.
        save_members: also write `MEMBER/CASE.nii.gz` for each network.
        save_uncertainty: also write `CASE_uncertainty.nii.gz`, see `Prediction.uncertainty`.
        overwrite: replace results of another model, other settings or another scan.
        trust_image_geometry: take the first channel's affine for all; also if the model was trained so.
        finish: called with each scan and its label file, those skipped included.
        progress: called with (scans done, scans in all, name, seconds) after each scan.

    Returns:
        The label files of all scans, those skipped included.

    Raises:
        UserError: nothing to segment, foreign files in `out`, or (at the end) a list of the failed scans.
    """
    window_stride(model.plan.patch, config.stride)
    scans = list_scans(source, len(model.plan.channels))
    settings = {**config.model_dump(mode="json", exclude={"batch"}), "precision": precision}
    wanted = Wanted(save_probabilities, save_members, save_uncertainty)
    outputs = OutputFolder(out, model, settings=settings, wanted=wanted)
    todo = outputs.open(scans, overwrite=overwrite)
    trust = trust_image_geometry or model.plan.trust_image_geometry
    failed: dict[str, UserError] = {}
    done = len(scans) - len(todo)
    for scan in (*(scan for scan in scans if scan not in todo), *todo):
        started, prediction = time.monotonic(), None
        with _noted(failed, scan):
            if scan in todo:
                check_name(scan.name)
                image = read_scan(scan, trust_image_geometry=trust)
                prediction = predict_case(model, image, config, precision=precision, **wanted._asdict())
        if prediction is not None:  # a disk that is full ends it all
            outputs.write(
                scan, image.affine, prediction.label, prediction.quality,
                prediction.probs, prediction.members, prediction.uncertainty,
            )  # fmt: skip
        with _noted(failed, scan):
            if finish is not None and scan.name not in failed:
                finish(scan, outputs.label_file(scan))
        if scan in todo:
            done += 1
            if progress is not None:
                progress(done, len(scans), scan.name, time.monotonic() - started)
    outputs.write_quality()
    if failed:
        raise _failure(failed, len(scans), out)
    return [outputs.label_file(scan) for scan in scans]


@contextmanager
def _noted(failed: dict[str, UserError], scan: Scan) -> Iterator[None]:
    """Note what is wrong with a scan, or that it needs too much memory, and continue."""
    try:
        yield
    except UserError as error:
        failed[scan.name] = error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        failed[scan.name] = too_large(scan.files[0], shortened_text(error))


def _on_source_grid(
    probs: Tensor, grid: Grid, probabilities: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    if not probabilities:
        return label_to_source(probs, grid), None
    full = probs_to_source(probs, grid)
    return full.argmax(0).astype(np.uint8), full


def _check_image(image: Volume, model: LoadedModel) -> None:
    """Refuse another number of channels, and a working grid that does not fit into memory."""
    shape, names = image.array.shape, model.plan.channels
    if len(shape) != 4 or shape[0] != len(names):
        files = ", ".join(f"CASE_{index:04}.nii.gz ({name})" for index, name in enumerate(names))
        raise UserError(
            "The scan has the wrong number of channels",
            shape[0] if len(shape) == 4 else f"an array of shape {shape}",
            f"{len(names)}: {', '.join(names)}",
            f"provide one file a channel, in this order: {files}",
        )
    volume = prod(shape[1:]) * abs(float(np.linalg.det(image.affine[:3, :3])))
    voxels, free = volume / prod(model.plan.spacing_mm), free_memory(torch.device("cpu"))
    if model.plan.crop == "none" and free is not None and 4 * voxels * (2 * len(names) + 1) > free:
        mm = " x ".join(f"{step:.4g}" for step in image.spacing_mm)
        raise too_large(None, f"{voxels:.3g} voxels after resampling, from voxels of {mm} mm")


def _failure(failed: Mapping[str, UserError], total: int, out: Path) -> UserError:
    if total == 1:
        return next(iter(failed.values()))
    lines = [f"{name}: {error.what} ({error.found})" for name, error in failed.items()]
    what = f"{len(failed)} of {total} scans could not be segmented"
    what += f"; the others are in {out}" if len(failed) < total else ""
    do = "repair or remove them and run the same command again; finished scans are skipped"
    return UserError(what, "\n            ".join(lines), "readable scans with the model's channels", do)
