"""What notebooks show of a prediction."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semivox.inference.model import LoadedModel
from semivox.inference.predictor import Prediction, predict_case
from semivox.inference.sources import as_volume
from semivox.io.volume import IGNORE, Volume
from semivox.reporting.planes import planes_figure
from semivox.reporting.slices import turned
from semivox.reporting.style import save_png


class Picture:
    """A picture that a notebook displays; `figure` is matplotlib's."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: Path | str) -> None:
        """Write it as a PNG."""
        save_png(self.figure, Path(path))

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", facecolor=self.figure.get_facecolor())
        return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class PlottedPrediction(Prediction):
    """A prediction with the scan that it was made of, so that it can be drawn."""

    image: Volume = cast(Any, None)  # noqa: RUF009
    class_names: tuple[str, ...] = ()  # background first

    def plot(self) -> Picture:
        """Draw the segmentation in three planes, and the uncertainty as heat if it was asked for."""
        return draw_case(self.image, self.label, None, self.uncertainty, self.class_names)


def plotted(model: LoadedModel, image: Any, **options: Any) -> PlottedPrediction:
    """Segment one scan in memory, see `semivox.predict_image`."""
    volume = as_volume(image)
    found = predict_case(model, volume, **options)
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return PlottedPrediction(**values, image=volume, class_names=tuple(model.plan.class_names))


def draw_case(
    image: Volume,
    found: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    doubt: NDArray[Any] | None,
    class_names: Sequence[str],
) -> Picture:
    """Draw a segmentation on its scan; all arrays (X, Y, Z) on the grid of `image`."""
    known = None if truth is None else np.where(truth == IGNORE, 0, truth)
    scan, *labels = turned(image.array[0], image.spacing_mm, image.axes, found, known, doubt)
    return Picture(planes_figure(scan, *labels, class_names=class_names))
