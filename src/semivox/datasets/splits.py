"""The roles of the cases: how they are chosen, and the files that fix them, semivox's or nnU-Net's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from semivox.config import SplitConfig
from semivox.datasets.dataset import Dataset, is_index
from semivox.errors import UserError, shortened
from semivox.files import read_json, write_json

SPLITS = "splits.json"
_ROLES = ("labeled", "unlabeled", "val", "test")


class Split(BaseModel):
    """Names of the cases in each role; no case has two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labeled: tuple[str, ...]  # the only cases whose label files training may open
    unlabeled: tuple[str, ...] = ()  # trained on without labels, whether or not there are label files
    val: tuple[str, ...] = ()  # held out of training; their labels choose the checkpoint
    test: tuple[str, ...] = ()  # untouched until the end
    how: str = ""  # the split was made, in words

    def roles(self) -> dict[str, str]:
        """Return the role of each case that has one: labeled, unlabeled, val or test."""
        return {name: role for role in _ROLES for name in getattr(self, role)}


def make_split(dataset: Dataset, config: SplitConfig) -> Split:
    """Split the training pool in the order of the data set (else of the names), or shuffled by `config.seed`.

    Validation takes the last `config.val` cases that have a label file, labeled the first `config.labeled` of
    the others that have one; everything else, and the extra pool, is unlabeled. A fraction refers to all
    training cases that are not for validation (half a case rounds up, at least 1). With `config.fold` and no
    file, validation takes one fold of `k_folds`.
    """
    if config.file is not None:
        return load_split(Path(config.file), dataset, config.fold or 0)
    if config.fold is not None:
        splits = k_folds(dataset, config.folds, config.labeled, config.seed)
        if config.fold >= len(splits):
            raise _no_fold(config.fold, len(splits), None)
        return splits[config.fold]
    order, text = _ordered(dataset, config.seed)
    labeled = dataset.with_label(order)
    if config.val >= len(labeled):
        raise _too_few(dataset, len(labeled), 1, config.val)
    val = labeled[len(labeled) - config.val :]
    how = f"{text}; val: the last {config.val} with a label file"
    return _assign(dataset, order, val, config.labeled, how)


def stored_split(data: Path, dataset: Dataset, config: SplitConfig) -> Split:
    """Return the split asked for; with default settings that of a workspace. Nothing is written."""
    if config == SplitConfig() and is_index(data) and (data / SPLITS).exists():
        return load_split(data / SPLITS, dataset, 0)
    return make_split(dataset, config)


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
    """
    order, text = _ordered(dataset, seed)
    with_file = dataset.with_label(order)
    if not 2 <= folds <= len(with_file):
        found, expected = f"{folds} folds", f"2 to {len(with_file)}, the number of cases with a label file"
        do = "--set split.folds=N"
        raise UserError("The number of folds does not fit", found, expected, do, dataset.root)
    how = f"{text}; val: fold {{}} of {folds}, every {folds}th case with a label file"
    return [
        _assign(dataset, order, with_file[fold::folds], labeled, how.format(fold)) for fold in range(folds)
    ]


def _ordered(dataset: Dataset, seed: int | None) -> tuple[list[str], str]:
    """Return the training pool in the data set's order, or shuffled from the sorted names; and in words."""
    names = sorted(case.name for case in dataset.pool("train"))
    if seed is not None:
        shuffled = np.random.RandomState(seed).permutation(len(names))
        return [names[index] for index in shuffled], f"shuffled with seed {seed}"
    first = [name for name in dataset.order if name in set(names)]
    text = "in the data set's order" if dataset.order else "sorted by name"
    return list(dict.fromkeys([*first, *names])), text


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
    if isinstance(labeled, int) and not isinstance(labeled, bool) and labeled >= 1:
        return labeled
    if isinstance(labeled, float) and 0 < labeled < 1:
        return max(1, int(labeled * cases + 0.5))
    expected = "a whole number from 1 on, or a fraction between 0 and 1; leave it out to take all"
    raise UserError("The number of labeled cases is out of range", labeled, expected)


def _too_few(dataset: Dataset, available: int, labeled: int, val: int) -> UserError:
    what = "There are not enough training cases with a label file"
    what = what if available else "No case has a label file"
    found = f"{available} of {len(dataset.pool('train'))} training cases have a label file"
    expected = f"at least {labeled + val}: {labeled} labeled + {val} for validation"
    do = "ask for fewer labeled or validation cases, or add label files to labelsTr"
    return UserError(what, found, expected, do, dataset.root)


def save_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write splits as the folds of one file."""
    folds = [split.model_dump() for split in splits]
    write_json(path, {"format": "semivox-splits", "version": 1, "folds": folds})


def load_split(path: Path, dataset: Dataset, fold: int) -> Split:
    """Read one fold of a file by `save_splits`, or of nnU-Net's `[{"train": [...], "val": [...]}, ...]`.

    In nnU-Net's form, train cases with a label file are labeled; the other train cases, those without a label
    file (nnU-Net's file cannot name them) and the extra pool are unlabeled. Cases with a label file that the
    fold does not name are left out.
    """
    folds = content = read_json(path)
    if isinstance(content, dict):
        is_ours = (content.get("format"), content.get("version")) == ("semivox-splits", 1)
        folds = content.get("folds") if is_ours else None
    if not isinstance(folds, list) or not folds or not all(isinstance(entry, dict) for entry in folds):
        raise _malformed(path, "neither semivox splits (version 1) nor a list of folds")
    if not 0 <= fold < len(folds):
        raise _no_fold(fold, len(folds), path)
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
    train: tuple[str, ...]
    val: tuple[str, ...] = ()


def _from_nnunet(entry: dict[str, Any], dataset: Dataset, path: Path, fold: int) -> Split:
    lists = _NnunetFold.model_validate(entry)
    for name in lists.train:
        dataset.case(name, path)
    labeled, named = dataset.with_label(lists.train), {*lists.train, *lists.val}
    others = [case for case in dataset.pool("train") if case.label is None] + [*dataset.pool("extra")]
    return Split(
        labeled=labeled,
        unlabeled=(
            *(name for name in lists.train if name not in labeled),
            *(case.name for case in others if case.name not in named),
        ),
        val=lists.val,
        test=tuple(case.name for case in dataset.pool("test") if case.name not in named),
        how=f"fold {fold} of {path.name}",
    )


def _check(split: Split, dataset: Dataset, path: Path) -> None:
    roles: dict[str, list[str]] = defaultdict(list)
    for role in _ROLES:
        for name in getattr(split, role):
            roles[dataset.case(name, path).name].append(role)
    if twice := [f"{name} in {' and '.join(its)}" for name, its in roles.items() if len(its) > 1]:
        do = "remove it from all lists but one"
        raise UserError("A case has two roles in the split", shortened(twice, 5), None, do, path)
    if not split.labeled:
        raise UserError("The split has no labeled case", None, None, 'fill the list "labeled"', path)
    if missing := [name for name in (*split.labeled, *split.val) if dataset.case(name).label is None]:
        what, do = "A labeled or validation case of the split has no label file", "move it to the unlabeled"
        raise UserError(what, shortened(missing, 5), None, do, path)


def _no_fold(fold: int, count: int, path: Path | None) -> UserError:
    return UserError(f"There is no fold {fold}", f"{count} folds", f"0 to {count - 1}", path=path)


def _malformed(path: Path, found: str) -> UserError:
    expected = (
        '{"format": "semivox-splits", "version": 1, "folds": [{"labeled": [...], "unlabeled": [...],'
        ' "val": [...], "test": [...]}]} or nnU-Net\'s [{"train": [...], "val": [...]}]'
    )
    return UserError("The file holds no splits", found, expected, None, path)
