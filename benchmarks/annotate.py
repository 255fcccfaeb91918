"""Simulate annotation: does `semivox rank` choose better scans than chance?

Starts with a few labeled scans, trains, ranks the others, "annotates" the first ones, continues the
training with `train.init`, and so on. All rules share the first training of a seed. Writes `annotate.csv`
with the Dice after each round, on the test cases or, to choose a rule, on the last `--val` training cases,
which are never labeled then; prints the mean of each rule, and its gain over `random`.

    python benchmarks/annotate.py DATA OUT --rounds 3 --seeds 2 --by both random
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import semivox
from quality import mean_dice
from semivox.datasets.dataset import Case, Dataset
from semivox.datasets.splits import Split, save_splits
from semivox.inference.model import load_model
from semivox.inference.predictor import predict_case
from semivox.io.volume import read_image, read_label
from timing import parser_of

SIZES = {
    "--start": 4, "--add": 4, "--rounds": 3, "--seeds": 3, "--iterations": 400, "--width": 8, "--test": 40,
    "--val": 0,
}  # fmt: skip


def train(
    args: argparse.Namespace, folder: Path, names: list[str], labeled: list[str], before: Path | None
) -> Path:
    """Train on `labeled`, from the weights of `before`; the other names are unlabeled."""
    folder.mkdir(parents=True, exist_ok=True)
    file, others = folder / "labeled.json", tuple(name for name in names if name not in labeled)
    save_splits(file, [Split(labeled=tuple(labeled), unlabeled=others)])
    settings: dict[str, Any] = {
        "split": {"file": str(file)},
        "net": {"width": args.width},
        "train": {"iterations": args.iterations, "workers": 0, "device": "cpu"},
    }
    if before is not None:
        settings["train"]["init"] = str(before)
    return semivox.train(
        args.data, method=args.method, config=settings, out=folder / "run", work=args.out / "work"
    )


def dice_of(run: Path, dataset: Dataset, cases: Sequence[Case]) -> float:
    """Mean Dice over the classes and cases, on their own grids."""
    model, scores = load_model(run, "cpu"), []
    for case in cases:
        image = read_image(case.images)
        true = read_label(case.label, dataset.class_values, image).array
        scores.append(mean_dice(predict_case(model, image).label, true, dataset.num_classes))
    return float(np.mean(scores))


def simulate(args: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """One start, then every rule from there; a row for each training."""
    dataset = semivox.open_dataset(args.data)
    names = [case.name for case in dataset.pool("train") if case.label is not None]
    scored = dataset.pool("test")[: args.test]
    if args.val:
        names, scored = names[: -args.val], [dataset.case(name) for name in names[-args.val :]]
    start = np.random.default_rng(seed).permutation(names)[: args.start].tolist()
    first = train(args, args.out / f"seed{seed}" / "start", names, start, None)
    dice = dice_of(first, dataset, scored)
    for by in args.by:
        yield {"seed": seed, "by": by, "labels": len(start), "dice": dice}
    for by in args.by:
        run, labeled = first, start
        for number in range(1, args.rounds):
            folder = args.out / f"seed{seed}" / f"{by}{number}"
            table = semivox.rank(run, args.data, folder, by=by, seed=seed, device="cpu")
            labeled = labeled + table["case"].head(args.add).tolist()
            run = train(args, folder, names, labeled, run)
            dice = dice_of(run, dataset, scored)
            yield {"seed": seed, "by": by, "labels": len(labeled), "dice": dice}


def main() -> None:
    """Simulate all seeds; print the mean Dice of each rule by the number of labels, and gains over chance."""
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--by", nargs="+", default=["both", "uncertainty", "diversity", "random"])
    parser.add_argument("--method", default="labels_only")
    for name, value in SIZES.items():
        parser.add_argument(name, type=int, default=value)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for row in simulate(args, seed):
            print(row, flush=True)
            rows.append(row)
            pd.DataFrame(rows).to_csv(args.out / "annotate.csv", index=False)
    table = pd.DataFrame(rows)
    print(table.pivot_table(index="by", columns="labels", values="dice").round(4))
    if "random" in args.by:
        by_seed = table.pivot_table(index=["seed", "labels"], columns="by", values="dice")
        print(by_seed.sub(by_seed["random"], axis=0).round(4))


if __name__ == "__main__":
    main()
