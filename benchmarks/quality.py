"""Measure what the predicted Dice and the probabilities of a run are worth on scans with reference labels.

Prints the expected calibration error before and after the temperature, and of the predicted Dice its rank
correlation with the true one, its mean error, the share of true values inside the interval and the share of
the worst tenth that is among those flagged. `--cases rest` takes cases of the training list that the run's
split does not name, `--cases unlabeled` those that it has without labels: a run of `labels_only` never saw
them; of `--cases val` the Dice alone is worth reading. `--draws` repeats the judgement with validation cases
drawn from the scored ones, to show how much depends on which they are. `--also` averages further runs,
`--tta` five views. `--snapshots` adds how well the last weights agree with the averaged ones. The table of
cases goes to OUT.

    python benchmarks/quality.py RUN DATA quality.csv --cases test [--also RUN2 --also RUN3] [--tta]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import semivox
from semivox.datasets.dataset import Case, Dataset
from semivox.datasets.splits import load_split
from semivox.evaluation.metrics import case_metrics
from semivox.inference.calibrate import Sample, calibration_error, sample
from semivox.inference.model import LoadedModel, join, lean, load_model
from semivox.inference.predictor import predict_case
from semivox.inference.quality import FIGURES, LEARNED, Judge, flagged, tempered
from semivox.io.volume import read_image, read_label
from semivox.methods import create
from semivox.nets import NetFactory
from timing import parser_of

VOXELS = 20_000  # of each case, for the calibration error
Scored = tuple[pd.DataFrame, Sample, Sample]


def chosen(run: Path, dataset: Dataset, which: str) -> list[Case]:
    """Return the test cases, or those of the training list that are unlabeled or not in the run's split."""
    if which == "test":
        return [case for case in dataset.pool("test") if case.label is not None]
    roles = load_split(run / "splits.json", dataset, 0).roles()
    train = [case for case in dataset.pool("train") if case.label is not None]
    return [case for case in train if roles.get(case.name, "rest") == which]


def last_weights(run: Path, model: LoadedModel) -> LoadedModel:
    """Return the model with the weights of the last iteration in place of the averaged ones."""
    about = model.meta["method"]
    method = create(about["name"], about["options"], NetFactory(**model.meta["net"]))
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    method.load_state_dict(checkpoint["weights"])
    lean(method.eval(), model.device)
    return replace(model, method=method)


def mean_dice(label: NDArray[Any], reference: NDArray[Any], classes: int) -> float:
    """Return the mean over the foreground classes."""
    rows = case_metrics(label, reference, classes, (1, 1, 1), profile="published")
    return float(np.mean([row["dice"] for row in rows]))


def score(
    model: LoadedModel,
    cases: list[Case],
    dataset: Dataset,
    share: float,
    tta: bool,
    last: LoadedModel | None = None,
) -> Scored:
    """Predict each case and compare; also return voxels in question without and with the temperature."""
    rows, before, after = [], [], []
    config = model.settings().model_copy(update={"tta": tta})
    for case in cases:
        image = read_image(case.images)
        true = read_label(case.label, dataset.class_values, image).array
        found = predict_case(model, image, config, probabilities=True)
        row = {"case": case.name, "dice": mean_dice(found.label, true, dataset.num_classes)}
        if last is not None:
            other = predict_case(last, image, config).label
            row["snapshots"] = mean_dice(other, found.label, dataset.num_classes)
        row |= {"predicted": found.quality.dice, "low": found.quality.low, "high": found.quality.high}
        rows.append(row | {"alarm": bool(found.quality.alarms), **found.quality.figures})
        probs = torch.from_numpy(found.probs)
        after.append(sample(probs, true, VOXELS))
        before.append(sample(tempered(probs, 1 / model.calibration.temperature), true, VOXELS))
    table = pd.DataFrame(rows)
    table["flag"] = flagged(
        table["predicted"].fillna(table["soft_dice"]).tolist(), table["alarm"].tolist(), share
    )
    return table, *(Sample(*map(np.concatenate, zip(*part, strict=True))) for part in (before, after))


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Compare predicted and true Dice of each case."""
    worst = table["dice"].rank(method="first") <= max(1, round(len(table) / 10))
    return {
        "rank_correlation": table["predicted"].corr(table["dice"], method="spearman"),
        "mean_error": (table["predicted"] - table["dice"]).abs().mean(),
        "coverage": table["dice"].between(table["low"], table["high"]).mean(),
        "below": (table["dice"] < table["low"]).mean(),
        "above": (table["dice"] > table["high"]).mean(),
        "width": (table["high"] - table["low"]).mean(),
        "worst_caught": table["flag"][worst].mean(),
        "flagged": table["flag"].mean(),
    }


def drawn(table: pd.DataFrame, count: int, draws: int, share: float) -> pd.DataFrame:
    """Judge with `count` random cases of the table as validation cases; a row for each draw."""
    rows = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(table))
        val, rest = table.iloc[order[:count]], table.iloc[order[count:]].copy()
        judge = Judge({name: val[name].tolist() for name in LEARNED}, val["dice"].tolist())
        found = [judge.judge(row) for row in rest[list(FIGURES)].to_dict("records")]
        for column, name in (("predicted", "dice"), ("low", "low"), ("high", "high")):
            rest[column] = [getattr(one, name) for one in found]
        rest["flag"] = flagged(rest["predicted"].tolist(), [bool(one.alarms) for one in found], share)
        rows.append(summary(rest))
    return pd.DataFrame(rows)


def main() -> None:
    """Score the cases and print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, help="CSV with a row a case")
    parser.add_argument("--cases", choices=["test", "val", "rest", "unlabeled"], default="test")
    parser.add_argument("--flag-share", type=float, default=0.2)
    parser.add_argument("--draws", type=int, default=0)
    parser.add_argument("--also", type=Path, action="append", default=[], help="another run to average with")
    parser.add_argument("--tta", action="store_true", help="average five views")
    parser.add_argument("--snapshots", action="store_true", help="compare with the last weights")
    args = parser.parse_args()
    runs = [args.run, *args.also]
    dataset, model = semivox.open_dataset(args.data), join([load_model(run, "cpu") for run in runs], runs)
    cases = chosen(args.run, dataset, args.cases)
    last = last_weights(args.run, model) if args.snapshots else None
    table, before, after = score(model, cases, dataset, args.flag_share, args.tta, last)
    table.to_csv(args.out, index=False)
    dice = table["dice"]
    spread = f"sd {dice.std():.3f}, {dice.min():.3f} to {dice.max():.3f}"
    print(f"{len(table)} cases, Dice {dice.mean():.3f}, {spread}")
    print(f"temperature {model.calibration.temperature}: expected calibration error"
          f" {calibration_error(before):.4f} before, {calibration_error(after):.4f} after")  # fmt: skip
    print(pd.Series(summary(table)).round(3).to_string())
    figures = table[[*FIGURES, *(["snapshots"] if last else [])]].corrwith(dice, method="spearman")
    print("rank correlation of each figure:", figures.round(2).to_dict())
    if args.draws:
        count = len(model.calibration.dice)
        found = drawn(table, count, args.draws, args.flag_share)
        print(f"{args.draws} random draws of {count} validation cases:")
        print(found.describe(percentiles=[0.05, 0.5]).loc[["mean", "5%", "50%"]].round(3).to_string())


if __name__ == "__main__":
    main()
