"""Order unlabeled scans by how much a model should gain from their annotation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semivox.config import PredictConfig
from semivox.datasets.dataset import Case, Dataset
from semivox.errors import UserError
from semivox.files import replacing
from semivox.inference.model import LoadedModel
from semivox.inference.predictor import Found, on_working_grid
from semivox.inference.quality import Judge
from semivox.inference.sources import split_of
from semivox.io.volume import read_image
from semivox.losses.prediction import winner
from semivox.manifest import Manifest
from semivox.preprocessing.inspect import Sample
from semivox.preprocessing.resample import to_working_grid
from semivox.progress import ProgressFactory, no_progress

By = Literal["uncertainty", "diversity", "both", "random"]
Draw = Callable[[Path, Sequence[Sample], Sequence[str]], None]
TABLE, SHEET = "rank.csv", "rank.png"
_DRAWN = 12
_Array = NDArray[np.float64]


def rank(
    model: LoadedModel,
    run: Path,
    dataset: Dataset,
    out: Path,
    *,
    config: PredictConfig,
    by: By = "both",
    seed: int = 0,
    draw: Draw | None = None,
    progress: ProgressFactory = no_progress,
) -> pd.DataFrame:
    """Rank the unlabeled scans of a data set; write `rank.csv`, and `rank.png` with the first of them.

    No label file is opened.

    Args: as of `semivox.rank`; `run` is the folder of the (first) model, see `split_of`; `draw` draws the
    first scans with their segmentations and captions.

    Returns:
        One row a scan, the most useful first: rank, case, uncertainty, distance, predicted_dice, reasons.
    """
    manifest, split = Manifest(out), split_of(run, model.plan, dataset)
    if "rank" not in manifest.read():
        manifest.require_own(TABLE, SHEET)
    if not split.unlabeled:
        what, found = "There is no unlabeled scan to rank", f"{len(split.labeled)} labeled cases"
        raise UserError(what, found, "a scan without a label", "add scans to the data set", dataset.root)
    cases = [dataset.case(name) for name in (*split.unlabeled, *split.labeled)]
    judge, rows, features = Judge(model.calibration.figures, model.calibration.dice), [], []
    with progress("rank") as report:
        for done, case in enumerate(cases, start=1):
            with pooled(model.method) as maps:
                figures = _seen(model, case, config)[1].figures
            if not maps:
                do = "use semivox predict and its quality.csv instead"
                raise UserError("The network shows no coarsest map", type(model.method).__name__, do=do)
            features.append(torch.cat(maps).mean(0).double().numpy())
            if done <= len(split.unlabeled):
                quality = judge.judge(figures)
                doubt = 1 - (quality.dice if judge.known else figures["soft_dice"])
                reasons = "; ".join((*quality.alarms, *quality.reasons))
                rows.append((case.name, doubt, quality.dice, reasons))
            report(done, len(cases), case.name)
    table = pd.DataFrame(rows, columns=["case", "uncertainty", "predicted_dice", "reasons"])
    points = standardised(np.array(features))
    chosen, distances = order(table["uncertainty"].to_numpy(), points, len(rows), by, seed)
    table.insert(2, "distance", distances)
    table = table.iloc[chosen].reset_index(drop=True)
    table.insert(0, "rank", range(1, len(rows) + 1))
    with replacing(out / TABLE) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g")
    if draw is not None:
        first = table.head(_DRAWN)
        samples = [_seen(model, dataset.case(name), config)[0] for name in first["case"]]
        draw(out / SHEET, samples, [f"{row.rank}. {row.case}" for row in first.itertuples()])
    manifest.report("rank", model=model.digest, cases=len(rows), by=by, seed=seed)
    return table


def order(
    uncertainty: _Array, features: _Array, candidates: int, by: By, seed: int
) -> tuple[list[int], _Array]:
    """Return the candidates, the best first, and each one's distance to those before it and labeled ones.

    `uncertainty`: the least sure first. `diversity`: always the scan farthest from those labeled or chosen
    (k-centre greedy, Sener and Savarese, Active Learning for CNNs: A Core-Set Approach, ICLR 2018). `both`:
    the highest product of the rank of its uncertainty and its distance. `random`: the control. Features are
    (candidates + labeled scans, D).
    """
    if by == "random":
        given: list[int] | None = np.random.default_rng(seed).permutation(candidates).tolist()
    else:
        given = np.argsort(-uncertainty, kind="stable").tolist() if by == "uncertainty" else None
    labeled, points = features[candidates:], features[:candidates]
    nearest = np.full(candidates, np.inf)
    for center in labeled if len(labeled) else [points.mean(0)]:
        nearest = np.minimum(nearest, np.linalg.norm(points - center, axis=1))
    weight = (uncertainty.argsort().argsort() + 1) / candidates if by == "both" else np.ones(candidates)
    left, chosen, distances = np.ones(candidates, bool), [], np.zeros(candidates)
    for place in range(candidates):
        best = given[place] if given else int(np.argmax(np.where(left, weight * nearest, -1.0)))
        left[best], distances[best] = False, nearest[best]
        chosen.append(best)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[best], axis=1))
    return chosen, distances


def standardised(features: _Array) -> _Array:
    """Bring each column to mean 0 and standard deviation 1; constant ones to 0."""
    sd = features.std(0)
    return np.asarray((features - features.mean(0)) / np.where(sd > 1e-12, sd, 1.0))


@contextmanager
def pooled(method: nn.Module) -> Iterator[list[Tensor]]:
    """Collect, inside the block, the means over space of the encoder's coarsest map, (B, D) for each call.

    The networks drop channels of that map, which is where it is seen; of several networks the first one that
    is called counts.
    """
    found: list[Tensor] = []
    first: list[nn.Module] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        first[:] = first or [module]
        if module is first[0]:
            found.append(output.detach().float().flatten(2).mean(2).cpu())

    places = {getattr(module, "dropout", None) for module in method.modules()}
    handles = [place.register_forward_hook(keep) for place in places if isinstance(place, nn.Module)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _seen(model: LoadedModel, case: Case, config: PredictConfig) -> tuple[Sample, Found]:
    """Return a scan on the working grid with its segmentation, and all that the model says of it."""
    trust = model.plan.trust_image_geometry
    image = read_image(case.images, model.plan.channels, trust_image_geometry=trust)
    array, grid = to_working_grid(image, model.plan)
    x, y, z = np.linalg.norm(grid.affine()[:3, :3], axis=0).tolist()
    found = on_working_grid(model, array, config)
    label = winner(found.probs).cpu().numpy().astype(np.uint8)
    return Sample(case.name, array[0], label, (x, y, z), "RAS"), found
