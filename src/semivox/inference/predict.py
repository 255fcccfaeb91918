"""`predict`: segmentations on the scanner's own grid, of files or of images in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from semivox.config import PredictConfig, config_error
from semivox.errors import UserError
from semivox.hardware import prefers_bf16
from semivox.inference.cover import Precision
from semivox.inference.model import LoadedModel, load_model
from semivox.inference.predictor import Prediction, predict_case, predict_files
from semivox.inference.sources import Scan, list_scans
from semivox.io.geometry import affine_text, is_degenerate, ras_affine
from semivox.io.volume import Volume, read_image
from semivox.manifest import write_manifest
from semivox.progress import ProgressFactory, no_progress

ImageLike = Any  # see `as_volume`
_FORMS = "a path, a nibabel or SimpleITK image, or (array, affine)"
Finisher = Callable[[LoadedModel, Sequence[Scan]], Callable[[Scan, Path], Any]]


def predict(
    model: Path | str | LoadedModel,
    source: Path | str,
    out: Path | str,
    *,
    config: PredictConfig | None = None,
    save_probabilities: bool = False,
    save_members: bool = False,
    save_uncertainty: bool = False,
    overwrite: bool = False,
    trust_image_geometry: bool = False,
    series: str | None = None,
    finisher: Finisher | None = None,
    device: str = "auto",
    progress: ProgressFactory = no_progress,
) -> list[Path]:
    """Segment a file or a folder of scans, each on its own grid, with the data set's label values.

    Args:
        finisher: called once with the model and the scans; it returns what is called with each scan and its
            label file, e.g. to write another format. All others: see `semivox.api.predict`.
    """
    if not isinstance(source, (str, Path)):
        found, expected = type(source).__name__, "one path: of a scan, or of a folder of scans"
        raise UserError("The source is not a path", found, expected, "use predict_image for images in memory")
    loaded = _loaded(model, device)
    scans = list_scans(Path(source), len(loaded.plan.channels), series)
    finish = None if finisher is None else finisher(loaded, scans)
    with progress("predict") as report:
        written = predict_files(
            loaded,
            scans,
            Path(out),
            config or stored_settings(loaded),
            precision=best_precision(loaded),
            save_probabilities=save_probabilities,
            save_members=save_members,
            save_uncertainty=save_uncertainty,
            overwrite=overwrite,
            trust_image_geometry=trust_image_geometry,
            finish=finish,
            progress=report,
        )
    write_manifest(Path(out), "predict", model=loaded.digest, source=str(source), cases=len(written))
    return written


def predict_image(
    model: Path | str | LoadedModel,
    image: ImageLike,
    *,
    config: PredictConfig | None = None,
    probabilities: bool = False,
    members: bool = False,
    uncertainty: bool = False,
    device: str = "auto",
) -> Prediction:
    """Segment one scan in memory.

    Args:
        model: a run folder or a model already loaded.
        image: a path, a nibabel or SimpleITK image, or `(array, affine)`, see `as_volume`.
        config, probabilities, members, uncertainty, device: as for `predict`.

    Returns:
        Class indices `(X, Y, Z)` on the image's own grid, with probabilities and members on request.
    """
    volume, loaded = as_volume(image), _loaded(model, device)
    return predict_case(
        loaded,
        volume,
        config or stored_settings(loaded),
        precision=best_precision(loaded),
        probabilities=probabilities,
        members=members,
        uncertainty=uncertainty,
    )


def stored_settings(model: LoadedModel) -> PredictConfig:
    """Return the sliding-window settings that a model was saved with."""
    return PredictConfig.model_validate(model.meta.get("predict", {}))


def best_precision(model: LoadedModel) -> Precision:
    """Return bf16 where the model's device is quicker with it, else 32 bit."""
    return "bf16" if prefers_bf16(model.device) else "32"


def changed_settings(model: LoadedModel, **changes: Any) -> PredictConfig:
    """Return the stored settings with changes (None: no change); a stride or overlap asks for patches.

    Raises:
        UserError: a value that is not allowed.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if {"stride", "overlap"} & set(given):
        given = {"window": "patch", **given}
    try:
        return PredictConfig.model_validate({**stored_settings(model).model_dump(), **given})
    except ValidationError as error:
        raise config_error(error, PredictConfig) from error


def _loaded(model: Path | str | LoadedModel, device: str) -> LoadedModel:
    return model if isinstance(model, LoadedModel) else load_model(Path(model), device=device)


def as_volume(image: ImageLike) -> Volume:
    """Turn an image into a `Volume` `(C, X, Y, Z)`.

    Args:
        image: a path; a nibabel image `(X, Y, Z)` or `(X, Y, Z, C)`; a SimpleITK image, also with several
            components; or an array `(X, Y, Z)` or `(C, X, Y, Z)` with its affine `(4, 4)` to mm, RAS axes.

    Raises:
        UserError: anything else, no real numbers, another number of axes, an affine that spans no space.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image([Path(image)])
    if isinstance(image, (tuple, list)) and len(image) == 2:
        array, affine = _numbers(image[0]), _numbers(image[1], np.float64)
    elif hasattr(image, "dataobj") and getattr(image, "affine", None) is not None:
        array, affine = _numbers(image.dataobj), _numbers(image.affine, np.float64)
        array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array
    elif hasattr(image, "GetDirection"):
        array, affine = _from_sitk(image)
    else:
        shape = f" of shape {image.shape}" if hasattr(image, "shape") else ""
        raise UserError(
            "This is not a scan with a place in space", type(image).__name__ + shape, _FORMS,
            "for an array: (array, affine), with e.g. nibabel's image.affine",
        )  # fmt: skip
    if array.ndim not in (3, 4) or array.size == 0:
        expected = "(X, Y, Z), or with channels (C, X, Y, Z), in a nibabel image (X, Y, Z, C); no side of 0"
        raise UserError("The array is not a scan", f"shape {array.shape}", expected, "pass one 3D scan")
    if affine.shape != (4, 4) or is_degenerate(affine):
        found = affine_text(affine) if affine.shape == (4, 4) else f"shape {affine.shape}"
        expected = "(4, 4) with three independent axes in mm"
        do = "pass the affine of the scan, e.g. nibabel's image.affine"
        raise UserError("The affine is degenerate", found, expected, do)
    return Volume(array if array.ndim == 4 else array[None], affine)


def _numbers(values: Any, dtype: Any = np.float32) -> Any:
    """Convert to an array of floats; complex numbers, text and objects are refused."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError("This is not an array", str(error), "an array of numbers") from error
    if array.dtype.kind not in "biuf":
        found = f"{array.dtype} of shape {array.shape}"
        raise UserError("The array does not hold real numbers", found, "integers or floats")
    return array.astype(dtype, copy=False)


def _from_sitk(image: Any) -> tuple[Any, Any]:
    import SimpleITK as sitk

    size = image.GetDimension()
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
        array = array.transpose(0, *reversed(range(1, array.ndim)))
    else:
        array = array.T
    if size != 3:
        raise UserError(
            "The image is not 3D", f"{size} axes, size {image.GetSize()}", "3 axes", "pass one 3D scan"
        )
    axes = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    return _numbers(array), ras_affine(axes, np.asarray(image.GetOrigin()))
