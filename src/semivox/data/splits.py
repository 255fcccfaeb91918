"""Which cases are labeled, unlabeled, for validation and for testing; and the files that fix it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from semivox.config import SplitConfig
from semivox.data.dataset import Dataset
from semivox.data.layouts import some
from semivox.errors import UserError
from semivox.files import read_json, write_json


class Split(BaseModel):
    """Names of the cases in each role; no case has two.

    Attributes:
        labeled: the only cases whose label files training may open.
        unlabeled: trained on without labels, whether or not there are label files.
        val: held out of training; their labels choose the checkpoint.
        test: untouched until the end.
        how: how the split was made, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    how: str = ""


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
    with_label = _with_label(dataset, order)
    if config.val >= len(with_label):
        raise _too_few(dataset, len(with_label), 1, config.val)
    val = with_label[len(with_label) - config.val :]
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
    with_label = _with_label(dataset, order)
    if not 2 <= folds <= len(with_label):
        raise UserError(
            "The number of folds does not fit",
            found=f"{folds} folds, {len(with_label)} cases with a label file",
            expected="2 folds or more, and at most one for each case with a label file",
            do="choose another number of folds",
        )
    order_text = _order_text(dataset, seed)
    return [
        _assign(
            dataset,
            order,
            with_label[fold::folds],
            labeled,
            f"{order_text}; val: fold {fold} of {folds}, every {folds}th case with a label file",
        )
        for fold in range(folds)
    ]


def save_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write splits as the folds of one file."""
    folds = [split.model_dump() for split in splits]
    write_json(path, {"format": "semivox-splits", "version": 1, "folds": folds})


def load_split(path: Path, dataset: Dataset, fold: int) -> Split:
    """Read one fold of a file by `save_splits`, or of nnU-Net's `[{"train": [...], "val": [...]}, ...]`.

    In nnU-Net's form, train cases with a label file are labeled, unless "labeled" lists them; the other train
    cases, cases that have no label file (nnU-Net's file cannot name them) and the extra pool are unlabeled,
    unless "unlabeled" lists them; test is the test pool, unless "test" lists it. Cases with a label file that
    the fold does not name are left out.

    Raises:
        UserError: a file or fold that does not exist or is malformed; unknown names (the nearest one is
            named); a case in two lists; no labeled case; a labeled or validation case without label file.
    """
    content = read_json(path)
    folds = content.get("folds") if isinstance(content, dict) else content
    if isinstance(content, dict) and (content.get("format"), content.get("version")) != ("semivox-splits", 1):
        folds = None
    if not isinstance(folds, list) or not folds or not all(isinstance(entry, dict) for entry in folds):
        raise _malformed(path, "neither semivox splits (version 1) nor a list of folds")
    if not 0 <= fold < len(folds):
        raise UserError(
            f"There is no fold {fold}",
            path=path,
            found=f"{len(folds)} folds",
            expected=f"0 to {len(folds) - 1}",
            do="choose one of these",
        )
    try:
        if isinstance(content, dict):
            split = Split.model_validate(folds[fold])
        else:
            split = _from_nnunet(folds[fold], dataset, path, fold)
    except ValidationError as error:
        raise _malformed(path, " ".join(str(error).split())[:300]) from error
    _check(split, dataset, path)
    return split


class _NnunetFold(BaseModel):
    model_config = ConfigDict(extra="forbid")
    train: tuple[str, ...] | None = None
    val: tuple[str, ...] = ()
    labeled: tuple[str, ...] | None = None
    unlabeled: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None


def _from_nnunet(entry: dict[str, Any], dataset: Dataset, path: Path, fold: int) -> Split:
    lists = _NnunetFold.model_validate(entry)
    train = lists.train or ()
    _known(train, dataset, path)
    labeled = lists.labeled if lists.labeled is not None else _with_label(dataset, train)
    used = {*labeled, *lists.val, *(lists.test or ())}
    unlabeled = lists.unlabeled
    if unlabeled is None:
        others = [case for case in dataset.pool("train") if case.label is None] + [*dataset.pool("extra")]
        unlabeled = (
            *(name for name in train if name not in labeled),
            *(case.name for case in others if case.name not in used.union(train)),
        )
    used.update(unlabeled)
    test = lists.test
    if test is None:
        test = tuple(case.name for case in dataset.pool("test") if case.name not in used)
    return Split(
        labeled=labeled, unlabeled=unlabeled, val=lists.val, test=test, how=f"fold {fold} of {path.name}"
    )


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


def _with_label(dataset: Dataset, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if dataset.case(name).label is not None)


def _assign(
    dataset: Dataset, order: Sequence[str], val: Sequence[str], labeled: float | None, how: str
) -> Split:
    """Divide what is not for validation into labeled and unlabeled."""
    rest = [name for name in order if name not in set(val)]
    candidates = _with_label(dataset, rest)
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


def _known(names: Sequence[str], dataset: Dataset, path: Path) -> None:
    for name in names:
        try:
            dataset.case(name)
        except UserError as error:
            raise UserError(
                error.what, path=path, found=error.found, expected=error.expected, do=error.do
            ) from None


def _check(split: Split, dataset: Dataset, path: Path) -> None:
    lists = {role: getattr(split, role) for role in ("labeled", "unlabeled", "val", "test")}
    counts = Counter(name for names in lists.values() for name in names)
    _known(list(counts), dataset, path)
    if twice := [name for name, count in counts.items() if count > 1]:
        places = [
            f"{name} in {' and '.join(r for r in lists for n in lists[r] if n == name)}" for name in twice
        ]
        raise UserError(
            "A case has two roles in the split",
            path=path,
            found=some(places),
            expected="each case once, in one of the lists",
            do="remove it from all lists but one",
        )
    if not split.labeled:
        raise UserError(
            "The split has no labeled case", path=path, expected="one at least", do='fill the list "labeled"'
        )
    if missing := [name for name in (*split.labeled, *split.val) if dataset.case(name).label is None]:
        raise UserError(
            "A labeled or validation case of the split has no label file",
            path=path,
            found=some(missing),
            expected="a label file for each of them",
            do="add the label files, or move these cases to the unlabeled",
        )


def _malformed(path: Path, found: str) -> UserError:
    return UserError(
        "The file holds no splits",
        path=path,
        found=found,
        expected='{"format": "semivox-splits", "version": 1, "folds": [{"labeled": [...], "unlabeled": [...],'
        ' "val": [...], "test": [...]}]} or nnU-Net\'s [{"train": [...], "val": [...]}]',
        do="correct the file, or give another one",
    )
