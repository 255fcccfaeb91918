"""Whole prepared scans predicted during training: to validate, and to make pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from semivox.config import PredictConfig
from semivox.files import replacing
from semivox.inference.cover import covered, room
from semivox.io.volume import IGNORE
from semivox.losses.components import largest_component
from semivox.methods.base import Method
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store

_CLOSE = 2  # voxels around the largest piece that pseudo-labels keep


def make_validator(
    store: Store, cases: Sequence[str], plan: Plan, config: PredictConfig
) -> Callable[[Method, torch.device, int], dict[str, float]]:
    """Build a function that segments the validation cases by sliding window and scores them.

    It returns `dice` (mean over cases of the mean over the foreground classes present in reference or
    prediction) and `dice_CLASS`. These figures are on the working grid; `evaluate` uses the scanner's grid.
    """
    classes = plan.class_names[1:]

    def validate(method: Method, device: torch.device, done: int) -> dict[str, float]:
        scores = np.full((len(cases), len(classes)), np.nan)
        for row, name in enumerate(cases):
            image = torch.from_numpy(np.asarray(store.image(name)[:], dtype=np.float32)).to(device)
            limit = room(method, device)
            probs = covered(image, method.predict, patch=plan.patch, config=config, room=limit)
            scores[row] = _dice(probs.argmax(0).cpu().numpy(), np.asarray(store.label(name)[:]), len(classes))
        by_class = {f"dice_{name}": _mean(column) for name, column in zip(classes, scores.T, strict=True)}
        return {"dice": _mean(np.array([_mean(row) for row in scores])), **by_class}

    return validate


def make_teacher(
    store: Store, cases: Sequence[str], plan: Plan, config: PredictConfig, folder: Path
) -> Callable[[Method, torch.device, int], None]:
    """Build a function that writes the pseudo-labels of unlabeled scans for a stage; it skips those it has.

    A class that forms one piece in every labeled scan keeps its largest piece and what is close to it.
    `folder`/round1 and so on hold the shares of the classes, `folder`/cases.csv a row a case and round: the
    volume of each class in voxels, the mean probability of the most probable class there (`certainty`), and
    `agreement`, the Dice of the foreground with that of the round before.
    """
    classes = plan.class_names[1:]

    def teach(method: Method, device: torch.device, stage: int) -> None:
        target, before = Store(pseudo_folder(folder, stage)), Store(pseudo_folder(folder, stage - 1))
        rows: list[Any] = pd.read_csv(folder / "cases.csv").to_dict("records") if stage > 1 else []
        for name in cases:
            if not target.has_shares(name):
                image = torch.from_numpy(np.asarray(store.image(name)[:], dtype=np.float32)).to(device)
                limit = room(method, device)
                probs = covered(image, method.predict, patch=plan.patch, config=config, room=limit)
                taught = method.teach(probs[None])[0].float().cpu().numpy()
                target.write_shares(name, _as_shares(taught, plan.one_piece))
            shares = np.asarray(target.shares(name)[:])
            found = {"case": name, "round": stage} | _figures(shares, classes)
            if before.has_shares(name):
                found["agreement"] = _overlap(shares, np.asarray(before.shares(name)[:]))
            rows.append(found)
        with replacing(folder / "cases.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)

    return teach


def pseudo_folder(folder: Path, stage: int) -> Path:
    """Return where the pseudo-labels that a stage learns from are stored."""
    return folder / f"round{stage}"


def _as_shares(probs: NDArray[np.float32], one_piece: Sequence[bool]) -> NDArray[np.uint8]:
    """Turn (K, X, Y, Z) probabilities into (K - 1, X, Y, Z) shares of 255; far pieces become background."""
    winner = probs.argmax(axis=0)
    shares = np.round(255 * probs[1:]).astype(np.uint8)
    for index, single in enumerate(one_piece):
        mask = winner == index + 1
        if single and mask.any():
            shares[index][~binary_dilation(largest_component(mask), iterations=_CLOSE)] = 0
    return shares


def _figures(shares: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, float]:
    background = 255 - shares.sum(axis=0, dtype=np.int32)
    inside = shares.max(axis=0) > background
    volumes = {f"voxels_{name}": float(part.sum() / 255) for name, part in zip(classes, shares, strict=True)}
    return volumes | {"certainty": float(shares.max(axis=0)[inside].mean() / 255) if inside.any() else 0.0}


def _overlap(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Compute the Dice of two soft foregrounds: 2 sum min / sum of both."""
    a, b = (shares.sum(axis=0, dtype=np.float64) for shares in (one, other))
    return float(2 * np.minimum(a, b).sum() / max(a.sum() + b.sum(), 1.0))


def _mean(values: NDArray[np.float64]) -> float:
    """Average the numbers that are not NaN; NaN if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _dice(prediction: NDArray[np.int64], reference: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """Compute the Dice of each foreground class where the reference is known; NaN where both have none."""
    prediction = np.where(reference == IGNORE, 0, prediction)
    scores = np.full(classes, np.nan)
    for index in range(1, classes + 1):
        found, true = prediction == index, reference == index
        size = found.sum() + true.sum()
        if size:
            scores[index - 1] = 2 * (found & true).sum() / size
    return scores
