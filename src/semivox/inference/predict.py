"""`predict`: segmentations on the scanner's own grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from semivox.config import PredictConfig, config_error
from semivox.errors import UserError
from semivox.hardware import prefers_bf16
from semivox.inference.images import ImageLike, as_volume
from semivox.inference.model import LoadedModel, load_model
from semivox.inference.predictor import Precision, Prediction, predict_case, predict_files
from semivox.inference.sources import Scan, list_scans
from semivox.manifest import write_manifest
from semivox.progress import ProgressFactory, no_progress

Finisher = Callable[[LoadedModel, Sequence[Scan]], Callable[[Scan, Path], Any]]


def predict(
    model: Path | str | LoadedModel,
    source: Path | str,
    out: Path | str,
    *,
    config: PredictConfig | None = None,
    save_probabilities: bool = False,
    save_members: bool = False,
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
    device: str = "auto",
) -> Prediction:
    """Segment one scan in memory.

    Args:
        model: a run folder or a model already loaded.
        image: a path, a nibabel or SimpleITK image, or `(array, affine)`, see `as_volume`.
        config, probabilities, members, device: as for `predict`.

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
