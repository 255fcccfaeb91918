"""From one scan to its segmentation: onto the working grid, through the networks, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference.model import LoadedModel
from semivox.inference.postprocess import postprocessed
from semivox.inference.quality import Judge, Quality, entropy, measure, tempered
from semivox.inference.windows import covered, free_memory, room
from semivox.io.volume import Volume
from semivox.methods.base import Method
from semivox.methods.cost import patch_divisor
from semivox.preprocessing.resample import label_to_source, map_to_source, probs_to_source, to_working_grid

Label = NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """What a model says on the working grid."""

    probs: Tensor  # (K, X, Y, Z) as the networks say it
    doubt: Tensor  # (X, Y, Z) mean entropy of what `probs` is the mean of; see `quality.entropy`
    members: dict[str, Tensor]  # the probabilities of each network alone, if asked for
    figures: dict[str, float]  # what tells how good it is, see `semivox.inference.quality`


@dataclass(frozen=True)
class Prediction:
    """What a model says about one scan, on the scan's grid; all but two only if asked for.

    `uncertainty` is the entropy of `probs` as a share of the largest one; `disagreement` the part of the
    entropy, before the temperature, that comes from several networks, runs or views which contradict each
    other, None where there is one.
    """

    label: Label  # (X, Y, Z) class indices
    quality: Quality  # how good it is likely to be
    probs: NDArray[np.float32] | None = None  # (K, X, Y, Z) in [0, 1], summing to 1 over the classes
    members: dict[str, Label] = field(default_factory=dict)  # class indices of each network
    uncertainty: NDArray[np.float32] | None = None  # (X, Y, Z)
    disagreement: NDArray[np.float32] | None = None  # (X, Y, Z)


def predict_case(
    model: LoadedModel,
    image: Volume,
    config: PredictConfig | None = None,
    *,
    probabilities: bool = False,
    members: bool = False,
    uncertainty: bool = False,
) -> Prediction:
    """Segment one scan.

    Args:
        model: from `load_model`.
        image: (C, X, Y, Z), any orientation and voxel size.
        config: settings of the prediction; None: as the model was saved.
        probabilities, members, uncertainty: also return these; of each network without clean-up. Without
            `probabilities` the label is made class by class on the scan's grid, in less memory.

    Raises:
        UserError: a wrong number of channels, too little memory, or a model that returns NaN.
    """
    config, known, classes = config or model.settings(), model.calibration, model.plan.class_names
    if (count := len(image.array)) != (wanted := len(model.plan.channels)):
        what, expected = "The scan has the wrong number of channels", ", ".join(model.plan.channels)
        files = ", ".join(f"CASE_{index:04}.nii.gz" for index in range(wanted))
        raise UserError(what, count, f"{wanted}: {expected}", f"provide one file a channel: {files}")
    array, grid = to_working_grid(image, model.plan)
    found = on_working_grid(model, array, config, members=members)
    probs = tempered(found.probs, known.temperature)
    full = probs_to_source(probs, grid) if probabilities else None
    label = label_to_source(probs, grid) if full is None else full.argmax(0).astype(np.uint8)
    if config.postprocess:
        rules = {classes.index(name): rule for name, rule in known.postprocess.items()}
        voxel_ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
        label = postprocessed(label, rules, voxel_ml)
    usual = enumerate(zip(classes[1:], known.volumes, strict=False), start=1)
    absent = [name for index, (name, one) in usual if one.always and not (label == index).any()]
    doubt = disagreement = None
    if uncertainty:
        doubt = map_to_source(entropy(probs), grid)
        if has_several(model, config):
            disagreement = map_to_source((entropy(found.probs) - found.doubt).clamp_(min=0), grid)
    return Prediction(
        label,
        Judge(known.figures, known.dice).judge(found.figures, absent),
        full,
        {name: label_to_source(values, grid) for name, values in found.members.items()},
        doubt,
        disagreement,
    )


def on_working_grid(
    model: LoadedModel, array: NDArray[np.float32], config: PredictConfig, *, members: bool = False
) -> Found:
    """Predict a scan (C, X, Y, Z) on the working grid, as the mean of the model's runs.

    Raises:
        UserError: a model or a scan with values that are no numbers.
    """
    voxel_ml, classes = prod(model.plan.spacing_mm) / 1000, len(model.plan.class_names)
    total, figures = None, []
    alone: dict[str, Tensor] = {}
    for number, run in enumerate(model.runs, start=1):
        maps, names = _one_run(run, array, config, members=members)
        figures.append(measure(maps[:classes], maps[classes], voxel_ml, run.calibration))
        if members:
            names = [f"{name}_{number}" for name in names] if model.others else names
            alone |= dict(zip(names, torch.split(maps[classes + 1 :], classes), strict=True))
        total = maps[: classes + 1] if total is None else total.add_(maps[: classes + 1])
    assert total is not None
    total = total.div_(len(figures)) if model.others else total
    means = {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}
    return Found(total[:classes], total[classes], alone, means)


def has_several(model: LoadedModel, config: PredictConfig) -> bool:
    """Tell whether a prediction is the mean of several networks, runs or views, which can disagree."""
    return config.tta or bool(model.others) or _averages(model.method)


def _averages(method: Method) -> bool:
    """Tell whether a method predicts the plain mean of several networks."""
    return type(method).predict is Method.predict and type(method).combine is Method.combine


def _one_run(
    model: LoadedModel, array: NDArray[np.float32], config: PredictConfig, *, members: bool
) -> tuple[Tensor, list[str]]:
    """Return the maps of `_forward` (K + 1 or more, X, Y, Z) of a whole scan, and the members' names."""
    names: list[str] = []
    device, needed = model.device, 4 * 4 * (len(model.plan.class_names) + 1) * prod(array.shape[1:])
    on_gpu = device.type == "cuda" and needed < (free_memory(device) or 0) / 4
    # one context for all windows: within it, weights are converted once
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=model.precision == "bf16"):
        maps = covered(
            torch.from_numpy(array),
            partial(_forward, model.method, VIEWS if config.tta else VIEWS[:1], members, names),
            patch=model.plan.patch,
            config=config,
            room=room(model.method, device),
            divisor=patch_divisor(model.method, model.plan.divisor),
            device=device,
            accumulate_on=device if on_gpu else torch.device("cpu"),
        )
    if not torch.isfinite(maps.sum()):
        if not np.isfinite(array).all():
            do = "replace them, e.g. by 0 with numpy.nan_to_num"
            raise UserError("The scan holds values that are not finite", "NaN or infinity", do=do)
        found = f"NaN or infinity in the probabilities, with precision {model.precision}"
        do = "the training diverged: train again with a smaller train.lr"
        raise UserError("The model returned values that are not numbers", found, do=do)
    return maps, names


class View(NamedTuple):
    """A small change of windows (B, C, X, Y, Z), and how the answer (B, K, X, Y, Z) is brought back."""

    factor: float = 1.0  # of the intensity
    summand: float = 0.0
    shift: int = 0  # voxels along each axis

    def change(self, image: Tensor) -> Tensor:
        """Change the intensity and shift the image."""
        return image if self == View() else _shifted(self.factor * image + self.summand, self.shift)

    def back(self, probs: Tensor) -> Tensor:
        """Shift what was predicted back to its place."""
        return _shifted(probs, -self.shift) if self.shift else probs


VIEWS = (View(), View(1.1), View(0.9, 0.1), View(shift=2), View(shift=-2))


def _shifted(values: Tensor, by: int) -> Tensor:
    """Move (B, C, X, Y, Z) by voxels along each axis; what enters at the border repeats it."""
    before, after = max(by, 0), max(-by, 0)
    padded = functional.pad(values, (before, after) * 3, mode="replicate")
    x, y, z = values.shape[2:]
    return padded[:, :, after : after + x, after : after + y, after : after + z]


def _forward(
    method: Method, views: tuple[View, ...], members: bool, names: list[str], windows: Tensor
) -> Tensor:
    """(B, C, X, Y, Z) -> (B, K + 1, X, Y, Z): probabilities and entropy; then each member's probabilities.

    The entropy is the mean over the views, and over the members where the prediction is their plain mean:
    then they cost nothing. `names` gets the names of the members.
    """
    averaging, found = _averages(method), []
    for view in views:
        image = view.change(windows)
        alone = method.predict_members(image) if members or averaging else {}
        probs = view.back(method.combine(alone) if alone else method.predict(image))
        parts = [view.back(part) for part in alone.values()]
        doubts = [entropy(part.movedim(1, 0)) for part in (parts if averaging else [probs])]
        names[:] = alone
        found.append(torch.cat([probs, torch.stack(doubts).mean(0)[:, None], *(parts if members else [])], 1))
    return found[0] if len(found) == 1 else torch.stack(found).mean(0)
