"""Learn from validation cases what a model's predictions are worth, and which clean-up helps them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from semivox.config import Config, PredictConfig
from semivox.datasets.splits import Split
from semivox.hardware import prefers_bf16, resolve_device
from semivox.inference.cover import Precision, on_working_grid
from semivox.inference.model import LoadedModel
from semivox.inference.postprocess import Choice, Rule, candidates, choose, scores
from semivox.inference.quality import Calibration, Judge, Volumes, class_volumes
from semivox.inference.uncertainty import Sample, calibration_error, fit_temperature, sample, tempered
from semivox.io.volume import IGNORE
from semivox.methods.base import Method, fixed
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store

_VOXELS = 500_000  # that a temperature is fitted on, all cases together


class _Case(NamedTuple):
    """What one validation case tells."""

    figures: dict[str, float]
    dice: list[list[float]]  # of each foreground class, under each rule
    voxels: Sample


def calibrate(
    model: LoadedModel,
    store: Store,
    labeled: Sequence[str],
    val: Sequence[str],
    config: PredictConfig,
    *,
    precision: Precision = "32",
) -> Calibration:
    """Measure volumes on the labeled cases; on validation cases temperature, clean-up, figures and Dice.

    Everything happens on the working grid. Without validation cases only the volumes are known.

    Args:
        model: the trained model, a single run.
        store: with all these cases prepared.
        labeled: cases that the model learned from.
        val: cases that it did not see; their labels decide nothing but what this returns.
        config: settings of the prediction.
        precision: arithmetic of the networks.
    """
    voxel_ml, classes = prod(model.plan.spacing_mm) / 1000, len(model.plan.class_names)
    millilitres = [
        voxel_ml * np.bincount(np.asarray(store.label(name)[:]).ravel(), minlength=IGNORE + 1)[1:classes]
        for name in labeled
    ]
    volumes = class_volumes(np.array(millilitres, np.float64).reshape(-1, classes - 1))
    if not val:
        return Calibration(volumes=tuple(volumes))
    rules = [candidates(math.exp(usual.mean)) for usual in volumes]
    own = config.model_copy(update={"tta": False})
    cases = [
        _case(model, store, name, own, precision, volumes, rules, -(-_VOXELS // len(val))) for name in val
    ]
    chosen = [
        choose(tried, np.array([case.dice[index] for case in cases])) for index, tried in enumerate(rules)
    ]
    return _summary(model, cases, volumes, rules, chosen)


def _case(
    model: LoadedModel,
    store: Store,
    name: str,
    config: PredictConfig,
    precision: Precision,
    volumes: Sequence[Volumes],
    rules: Sequence[Sequence[Rule]],
    most: int,
) -> _Case:
    image, true = np.asarray(store.image(name)[:], np.float32), np.asarray(store.label(name)[:])
    known = replace(model, calibration=Calibration(volumes=tuple(volumes)))
    found = on_working_grid(known, image, config, precision=precision)
    label = found.probs.argmax(0).cpu().numpy().astype(np.uint8)
    label[true == IGNORE] = IGNORE
    voxel_ml = prod(model.plan.spacing_mm) / 1000
    dice = [scores(label, true, index, tried, voxel_ml) for index, tried in enumerate(rules, start=1)]
    return _Case(found.figures, dice, sample(found.probs, true, most))


def _summary(
    model: LoadedModel,
    cases: Sequence[_Case],
    volumes: Sequence[Volumes],
    rules: Sequence[Sequence[Rule]],
    chosen: Sequence[Choice],
) -> Calibration:
    voxels = Sample(
        np.concatenate([case.voxels.probs for case in cases]),
        np.concatenate([case.voxels.true for case in cases]),
    )
    temperature = fit_temperature(voxels)
    names = model.plan.class_names[1:]
    places = [tried.index(one.rule) for tried, one in zip(rules, chosen, strict=True)]
    dice = [_mean([case.dice[index][place] for index, place in enumerate(places)]) for case in cases]
    scored = [(case.figures, value) for case, value in zip(cases, dice, strict=True) if not math.isnan(value)]
    figures = {
        name: tuple(round(one[name], 6) for one, _ in scored) for name in (scored[0][0] if scored else ())
    }
    softened = voxels._replace(probs=tempered(torch.from_numpy(voxels.probs.T), temperature).T.numpy())
    measured = {"ece_before": calibration_error(voxels), "ece_after": calibration_error(softened)}
    for name, one in zip(names, chosen, strict=True):
        if one.rule != Rule():
            measured |= {f"dice_{name}_before": one.before, f"dice_{name}_after": one.after}
    true = tuple(round(value, 6) for _, value in scored)
    judge = Judge(figures, true)
    if judge.known:
        measured["dice_error"] = float(np.abs(judge.left_out - np.array(true)).mean())
    return Calibration(
        temperature=temperature,
        postprocess={name: one.rule for name, one in zip(names, chosen, strict=True) if one.rule != Rule()},
        volumes=tuple(volumes),
        figures=figures,
        dice=true,
        measured={name: round(value, 4) for name, value in measured.items()},
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


def calibrated(method: Method, plan: Plan, store: Store, split: Split, config: Config) -> dict[str, Any]:
    """Calibrate a method that has just been trained, see `calibrate`; return the entry of `model.yaml`.

    The method keeps its mode and its weights, and comes back on the CPU.
    """
    device = resolve_device(config.train.device)
    model = LoadedModel(method.to(device), plan, {}, device, "")
    precision: Precision = "bf16" if prefers_bf16(device) else "32"
    with fixed(method), torch.no_grad():
        found = calibrate(model, store, split.labeled, split.val, config.predict, precision=precision)
    method.cpu()
    return found.model_dump(mode="json")
