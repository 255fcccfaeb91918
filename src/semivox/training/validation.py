"""Whole prepared scans predicted during training: to validate, and to make pseudo-labels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

from semivox.config import PredictConfig
from semivox.files import replacing
from semivox.inference.windows import covered, room
from semivox.io.volume import IGNORE
from semivox.losses.components import largest_component
from semivox.losses.schedules import Stage
from semivox.methods.base import Method
from semivox.methods.cost import patch_divisor
from semivox.preprocessing.inspect import Sample
from semivox.preprocessing.plan import Plan
from semivox.preprocessing.store import Store

Sheet = Callable[[Path, Sequence[Sample], Sequence[str]], None]
"""(path, scans with labels, a caption each): draw them."""

SHOWN = 24  # cases in the picture of the pseudo-labels
_TINTS = np.array([(255, 75, 92), (31, 182, 255), (255, 176, 0), (79, 211, 107), (185, 140, 255)])
_CLOSE = 2  # voxels around the largest piece that pseudo-labels keep


@dataclass
class Predictor:
    """Predicts prepared scans with the weights of a run under way."""

    store: Store
    cases: Sequence[str]
    plan: Plan
    config: PredictConfig

    def predict(self, method: Method, device: torch.device, name: str) -> Tensor:
        """Return the probabilities of a scan, (K, X, Y, Z)."""
        image = torch.from_numpy(np.asarray(self.store.image(name)[:], dtype=np.float32)).to(device)
        free, divisor = room(method, device), patch_divisor(method, self.plan.divisor)
        sizes: dict[str, Any] = {"patch": self.plan.patch, "room": free, "divisor": divisor}
        return covered(image, method.predict, config=self.config, **sizes)


@dataclass
class Validator(Predictor):
    """Segments the validation cases by sliding window and scores them.

    A call returns `dice` (mean over cases of the mean over the foreground classes present in reference or
    prediction) and `dice_CLASS`. These figures are on the working grid; `evaluate` uses the scanner's grid.
    """

    picture: bytes | None = None  # of a call: PNG of a slice of the first case, reference beside prediction

    def __call__(self, method: Method, device: torch.device, done: int) -> dict[str, float]:
        """Score the weights that `method` has."""
        classes = self.plan.class_names[1:]
        scores = np.full((len(self.cases), len(classes)), np.nan)
        for row, name in enumerate(self.cases):
            found = self.predict(method, device, name).argmax(0).cpu().numpy()
            truth = np.asarray(self.store.label(name)[:])
            scores[row] = _dice(found, truth, len(classes))
            if row == 0:
                image = np.asarray(self.store.image(name)[0], dtype=np.float32)
                self.picture = tinted_slice(image, (truth, found), self.plan.spacing_mm)
        by_class = {f"dice_{name}": _mean(column) for name, column in zip(classes, scores.T, strict=True)}
        return {"dice": _mean(np.array([_mean(row) for row in scores])), **by_class}


@dataclass
class Teacher(Predictor):
    """Writes the pseudo-labels of the unlabeled scans for a stage, unless it has them.

    A class that forms one piece in every labeled scan keeps its largest piece and what is close to it.
    `folder`/round1 and so on hold the shares of the classes, `folder`/cases.csv a row a case and round: the
    iteration at which they were made, the volume of each class in voxels, the mean probability of the most
    probable class there (`certainty`), and `agreement`, the Dice of the foreground with that of the round
    before. `left_out` says why a case does not teach; empty: it does, as all do today. The table is written
    last: what is not in it is made again. `draw` shows the least certain cases of the newest round.
    """

    folder: Path
    draw: Sheet | None = None

    def __call__(self, method: Method, device: torch.device, stage: Stage) -> None:
        """Make what the stage lacks, with the weights that `method` has."""
        index, table, plan = stage.index, self.folder / "cases.csv", self.plan
        known: list[Any] = pd.read_csv(table).to_dict("records") if table.is_file() else []
        if any((row["round"], row.get("iteration")) == (index, stage.start) for row in known):
            return
        target, before = (Store(pseudo_folder(self.folder, one)) for one in (index, index - 1))
        rows: list[dict[str, Any]] = []
        for name in self.cases:
            probs = method.teach(self.predict(method, device, name)[None])[0]
            shares = _as_shares(probs.float().cpu().numpy(), plan.one_piece)
            target.write_shares(name, shares)
            row = {"case": name, "round": index, "iteration": stage.start, "left_out": ""}
            row |= _figures(shares, plan.class_names[1:])
            if index > 1:
                row["agreement"] = _overlap(shares, np.asarray(before.shares(name)[:]))
            rows.append(row)
        if self.draw is not None:
            doubtful = sorted(rows, key=lambda row: row["certainty"])[:SHOWN]
            samples = [self._sample(target, row["case"]) for row in doubtful]
            self.draw(self.folder / "cases.png", samples, [self._caption(row) for row in doubtful])
        with replacing(table) as temporary:
            earlier = [row for row in known if row["round"] < index]
            pd.DataFrame([*earlier, *rows]).to_csv(temporary, index=False)

    def _caption(self, row: dict[str, Any]) -> str:
        voxel_ml = float(np.prod(self.plan.spacing_mm)) / 1000
        shares = (f"{name} {row[name]:.2f}" for name in ("certainty", "agreement") if name in row)
        names = self.plan.class_names[1:]
        volumes = (f"{name} {voxel_ml * row[f'voxels_{name}']:.3g} mL" for name in names)
        return "\n".join([row["case"], *shares, *volumes])

    def _sample(self, made: Store, name: str) -> Sample:
        image, shares = np.asarray(self.store.image(name)[0]), np.asarray(made.shares(name)[:], np.int32)
        label = np.argmax([255 - shares.sum(axis=0), *shares], axis=0).astype(np.uint8)
        return Sample(name, image, label, self.plan.spacing_mm, "RAS")


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


def tinted_slice(
    image: NDArray[np.float32], labels: Sequence[NDArray[Any]], spacing_mm: Sequence[float]
) -> bytes:
    """Draw the slice with the most foreground once a label map, tinted by class, side by side, as a PNG.

    The first label map chooses the slice, across the axis with the largest voxels. No matplotlib here.
    """
    axis = max(range(3), key=lambda axis: (spacing_mm[axis], axis))  # axial if all are equal
    others = tuple(other for other in range(3) if other != axis)
    at = int(((labels[0] > 0) & (labels[0] != IGNORE)).sum(axis=others).argmax())
    grey = np.take(image, at, axis)
    low, high = np.percentile(grey, (0.5, 99.5))
    grey = 255 * np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    panels = []
    for label in labels:
        classes = np.take(label, at, axis)
        classes = np.where(classes == IGNORE, 0, classes).astype(int)
        share = 0.45 * (classes > 0)[..., None]
        tint = _TINTS[(classes - 1) % len(_TINTS)]
        panels.append((1 - share) * grey[..., None] + share * tint)
    pixels = np.concatenate([panel.transpose(1, 0, 2)[::-1, ::-1] for panel in panels], axis=1)
    zoom = max(1, -(-256 // pixels.shape[0]))
    buffer = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)).save(buffer, "PNG")
    return buffer.getvalue()
