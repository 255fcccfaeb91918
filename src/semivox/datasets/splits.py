"""The roles of the cases, and the files that fix them: semivox's own form, and nnU-Net's folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from semivox.datasets.dataset import Dataset
from semivox.datasets.layouts import some
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
    labeled = lists.labeled if lists.labeled is not None else dataset.with_label(train)
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
