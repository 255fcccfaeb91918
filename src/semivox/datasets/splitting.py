"""Deciding which cases are labeled, unlabeled, for validation and for testing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semivox.config import SplitConfig
from semivox.datasets.dataset import Dataset
from semivox.datasets.splits import Split, load_split
from semivox.errors import UserError


def make_split(dataset: Dataset, config: SplitConfig) -> Split:
    """Split the training pool in the order of the data set (else of the names), or shuffled by `config.seed`.

    Validation takes the last `config.val` cases that have a label file, labeled the first `config.labeled` of
    the others that have one; everything else, and the extra pool, is unlabeled. A fraction refers to all
    training cases that are not for validation (half a case rounds up, at least 1).

    Raises:
        UserError: more cases asked for than have a label file; or what `load_split` says, with `config.file`.
    """
    if config.file is not None:
        return load_split(Path(config.file), dataset, config.fold)
    order = _ordered(dataset, config.seed)
    labeled = dataset.with_label(order)
    if config.val >= len(labeled):
        raise _too_few(dataset, len(labeled), 1, config.val)
    val = labeled[len(labeled) - config.val :]
    how = f"{_order_text(dataset, config.seed)}; val: the last {config.val} with a label file"
    return _assign(dataset, order, val, config.labeled, how)


def split_by_files(dataset: Dataset) -> Split:
    """Call every training case with a label file labeled and the others unlabeled; none is for validation."""
    train = [*dataset.pool("train"), *dataset.pool("extra")]
    return Split(
        labeled=tuple(case.name for case in train if case.label is not None),
        unlabeled=tuple(case.name for case in train if case.label is None),
        test=tuple(case.name for case in dataset.pool("test")),
        how="by label files",
    )


def k_folds(
    dataset: Dataset, folds: int, labeled: float | None = None, seed: int | None = None
) -> list[Split]:
    """Make cross-validation splits: each training case with a label file is for validation exactly once.

    Fold k validates on every `folds`-th case from the k-th on; the rest is divided as in `make_split`.

    Raises:
        UserError: fewer than 2 folds, or more folds than cases with a label file; and as `make_split`.
    """
    order = _ordered(dataset, seed)
    with_file = dataset.with_label(order)
    if not 2 <= folds <= len(with_file):
        raise UserError(
            "The number of folds does not fit",
            found=f"{folds} folds, {len(with_file)} cases with a label file",
            expected="2 folds or more, and at most one for each case with a label file",
            do="choose another number of folds",
        )
    order_text = _order_text(dataset, seed)
    return [
        _assign(
            dataset,
            order,
            with_file[fold::folds],
            labeled,
            f"{order_text}; val: fold {fold} of {folds}, every {folds}th case with a label file",
        )
        for fold in range(folds)
    ]


def _ordered(dataset: Dataset, seed: int | None) -> tuple[str, ...]:
    """Give the names of the training pool: in the data set's order, or shuffled from the sorted ones."""
    names = sorted(case.name for case in dataset.pool("train"))
    if seed is None:
        first = [name for name in dataset.order if name in set(names)]
        return (*first, *(name for name in names if name not in set(first)))
    return tuple(names[i] for i in np.random.RandomState(seed).permutation(len(names)))


def _order_text(dataset: Dataset, seed: int | None) -> str:
    if seed is not None:
        return f"shuffled with seed {seed}"
    return "in the data set's order" if dataset.order else "sorted by name"


def _assign(
    dataset: Dataset, order: Sequence[str], val: Sequence[str], labeled: float | None, how: str
) -> Split:
    """Divide what is not for validation into labeled and unlabeled."""
    rest = [name for name in order if name not in set(val)]
    candidates = dataset.with_label(rest)
    count = _count(labeled, len(rest), len(candidates))
    if count > len(candidates):
        raise _too_few(dataset, len(val) + len(candidates), count, len(val))
    chosen = candidates[:count]
    extra = [case.name for case in dataset.pool("extra")]
    return Split(
        labeled=chosen,
        unlabeled=(*(name for name in rest if name not in set(chosen)), *extra),
        val=tuple(val),
        test=tuple(case.name for case in dataset.pool("test")),
        how=f"{how}; labeled: the first {count} of the others with a label file",
    )


def _count(labeled: float | None, cases: int, available: int) -> int:
    """Turn a number, a fraction of `cases` or None (all) into a number of labeled cases."""
    if labeled is None:
        return available
    if isinstance(labeled, int) and labeled >= 1:
        return labeled
    if isinstance(labeled, float) and 0 < labeled < 1:
        return max(1, int(labeled * cases + 0.5))
    raise UserError(
        "The number of labeled cases is out of range",
        found=labeled,
        expected="a whole number from 1 on, or a fraction between 0 and 1",
        do="for all cases with a label file leave it out",
    )


def _too_few(dataset: Dataset, available: int, labeled: int, val: int) -> UserError:
    return UserError(
        "There are not enough training cases with a label file" if available else "No case has a label file",
        path=dataset.root,
        found=f"{available} of {len(dataset.pool('train'))} training cases have a label file",
        expected=f"at least {labeled + val}: {labeled} labeled + {val} for validation",
        do="ask for fewer labeled or validation cases, or add label files to labelsTr",
    )
