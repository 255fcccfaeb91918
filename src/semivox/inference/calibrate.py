"""Learn from validation cases what a model's predictions are worth, and which clean-up helps them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from semivox.config import Config, PredictConfig
from semivox.datasets.splits import Split
from semivox.hardware import resolve_device
from semivox.inference.model import LoadedModel
from semivox.inference.postprocess import Rule, candidates, choose, scores
from semivox.inference.predictor import on_working_grid
from semivox.inference.quality import FLOOR, Calibration, Judge, Volumes, certainty, tempered
from semivox.io.volume import IGNORE
from semivox.losses.prediction import winner
from semivox.methods.base import Method, fixed
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store

_VOXELS = 500_000  # that a temperature is fitted on, all cases together
_LIMITS = math.log(0.25), math.log(4.0)  # of the logarithm of a temperature
_BINS = 15


class Sample(NamedTuple):
    """Voxels in question of some cases: where foreground is true or more than 1 % probable."""

    probs: NDArray[np.float64]  # (N, K)
    true: NDArray[np.int64]  # (N,)


class _Case(NamedTuple):
    """What one validation case tells."""

    name: str
    figures: dict[str, float]
    dice: list[list[float]]  # of each foreground class, under each rule
    voxels: Sample


def calibrated(method: Method, plan: Plan, store: Store, split: Split, config: Config) -> dict[str, Any]:
    """Calibrate a method that has just been trained, see `calibrate`; return the entry of `model.yaml`.

    The method keeps its mode and its weights, and comes back on the CPU.
    """
    device = resolve_device(config.train.device)
    model = LoadedModel(method.to(device), plan, {}, device, "")
    with fixed(method), torch.no_grad():
        found = calibrate(model, store, split.labeled, split.val, config.predict)
    method.cpu()
    return found.model_dump(mode="json")


def calibrate(
    model: LoadedModel, store: Store, labeled: Sequence[str], val: Sequence[str], config: PredictConfig
) -> Calibration:
    """Measure volumes on the labeled cases; on validation cases temperature, clean-up, figures and Dice.

    Everything happens on the working grid of the store. The model is a single run that learned from `labeled`
    and did not see `val`: these labels decide nothing but what this returns. Without them only the volumes
    are known.
    """
    voxel_ml, names = prod(model.plan.spacing_mm) / 1000, model.plan.class_names[1:]
    counts = [
        np.bincount(np.asarray(store.label(name)[:]).ravel(), minlength=IGNORE + 1)[1 : len(names) + 1]
        for name in labeled
    ]
    volumes = tuple(class_volumes(voxel_ml * np.array(counts, np.float64).reshape(-1, len(names))))
    if not val:
        return Calibration(volumes=volumes)
    rules = [candidates(math.exp(usual.mean)) for usual in volumes]
    known = replace(model, calibration=Calibration(volumes=volumes))
    own, most = config.model_copy(update={"tta": False}), -(-_VOXELS // len(val))
    cases = []
    for name in val:
        image, true = np.asarray(store.image(name)[:], np.float32), np.asarray(store.label(name)[:])
        found = on_working_grid(known, image, own)
        label = winner(found.probs).cpu().numpy().astype(np.uint8)
        label[true == IGNORE] = IGNORE
        dice = [scores(label, true, index, tried, voxel_ml) for index, tried in enumerate(rules, start=1)]
        cases.append(_Case(name, found.figures, dice, sample(found.probs, true, most)))
    return _learned(cases, names, rules).model_copy(update={"volumes": volumes})


def class_volumes(millilitres: NDArray[np.float64]) -> list[Volumes]:
    """Summarise the volumes (cases, foreground classes) of labeled cases; 0 where a class is absent."""
    found = []
    for column in millilitres.T:
        logs = np.log(column[column > 0])
        spread = float(logs.std(ddof=1)) if len(logs) > 1 else 0.0
        mean = float(logs.mean()) if len(logs) else 0.0
        found.append(Volumes(mean=mean, sd=max(spread, 0.1), always=bool(len(logs) == len(column))))
    return found


def _learned(cases: Sequence[_Case], names: Sequence[str], rules: Sequence[Sequence[Rule]]) -> Calibration:
    """Fit the temperature, choose the clean-up, and keep each case's figures beside its Dice after it."""
    voxels = Sample(*(np.concatenate(parts) for parts in zip(*(case.voxels for case in cases), strict=True)))
    temperature = fit_temperature(voxels)
    softened = tempered(torch.from_numpy(voxels.probs.T), temperature).T.numpy()
    measured = {
        "ece_before": calibration_error(voxels),
        "ece_after": calibration_error(voxels._replace(probs=softened)),
    }
    chosen, after = {}, []
    for index, (name, tried) in enumerate(zip(names, rules, strict=True)):
        by_rule = np.array([case.dice[index] for case in cases])
        best = choose(tried, by_rule)
        after.append(by_rule[:, tried.index(best.rule)])
        if best.rule != Rule():
            chosen[name] = best.rule
            measured |= {f"dice_{name}_before": best.before, f"dice_{name}_after": best.after}
    rows, dice = {}, []
    for case, by_class in zip(cases, np.transpose(after), strict=True):
        if not np.isnan(by_class).all():
            sure = certainty(torch.from_numpy(case.voxels.probs.T), temperature)
            rows[case.name] = case.figures | {"certainty": sure}
            dice.append(round(float(np.nanmean(by_class)), 6))
    figures = {name: tuple(round(row[name], 6) for row in rows.values()) for name in cases[0].figures if rows}
    judge = Judge(figures, dice)
    if judge.known:
        measured["dice_error"] = float(np.abs(judge.left_out - np.array(dice)).mean())
    return Calibration(
        temperature=temperature,
        postprocess=chosen,
        cases=tuple(rows),
        figures=figures,
        dice=tuple(dice),
        measured={name: round(value, 4) for name, value in measured.items()},
    )


def sample(probs: Tensor, label: NDArray[np.uint8], most: int) -> Sample:
    """Take at most `most` evenly spread voxels in question; label values above K - 1 are not annotated."""
    values, true = probs.flatten(1).T.cpu().numpy(), label.ravel().astype(np.int64)
    chosen = np.flatnonzero(((true > 0) | (values[:, 0] < 0.99)) & (true < values.shape[1]))
    chosen = chosen[:: max(1, -(-len(chosen) // most))]
    return Sample(values[chosen].astype(np.float64), true[chosen])


def fit_temperature(voxels: Sample) -> float:
    """Return the temperature with the highest likelihood (Guo et al., Calibration, ICML 2017); 1 for none."""
    if not len(voxels.true):
        return 1.0
    logs, rows = np.log(np.maximum(voxels.probs, FLOOR)), np.arange(len(voxels.true))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logs / math.exp(log_temperature), axis=1)[rows, voxels.true].mean())

    return round(math.exp(minimize_scalar(loss, bounds=_LIMITS, method="bounded").x), 4)


def calibration_error(voxels: Sample) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, over 15 bins."""
    confidence, right = voxels.probs.max(1), voxels.probs.argmax(1) == voxels.true
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((confidence - right)[bins == index].sum())) for index in range(_BINS)]
    return sum(gaps) / max(len(right), 1)
