"""The roles of the cases: how they are chosen, and the files that fix them, semivox's or nnU-Net's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

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

    Validation takes the last `config.val` cases that have a label file, or with `config.fold` (and no file)
    every `config.folds`-th of them from that one on. Labeled are the first `config.labeled` of the others
    that have one; everything else, and the extra pool, is unlabeled. A fraction refers to all training cases
    that are not for validation (half a case rounds up, at least 1).
    """
    if config.file is not None:
        return load_split(Path(config.file), dataset, config.fold or 0)
    order, how = _ordered(dataset, config.seed)
    with_file, fold, folds = dataset.with_label(order), config.fold, config.folds
    if fold is None:
        val, held = with_file[len(with_file) - config.val :], config.val
        which = f"the last {held} with a label file" if held else "none"
    elif folds > len(with_file):
        found = f"{folds} folds of {len(with_file)} cases with a label file"
        expected, do = "two folds or more, and a case for each", "--set split.folds=N"
        raise UserError("The number of folds does not fit", found, expected, do, dataset.root)
    else:
        val = with_file[fold::folds]
        held, which = len(val), f"fold {fold} of {folds} of the cases with a label file"
    rest = [name for name in order if name not in set(val)]
    candidates, asked = dataset.with_label(rest), config.labeled
    count = asked if isinstance(asked, int) else len(candidates)
    if isinstance(asked, float):
        count = max(1, int(asked * len(rest) + 0.5))
    wanted = max(count, 1)
    if len(with_file) < wanted + held:
        what = "There are not enough training cases with a label file"
        what = what if with_file else "No case has a label file"
        found = f"{len(with_file)} of {len(order)} training cases have a label file"
        expected = f"at least {wanted + held}: {wanted} labeled + {held} for validation"
        do = "ask for fewer labeled or validation cases, or add label files to labelsTr"
        raise UserError(what, found, expected, do, dataset.root)
    chosen, others = candidates[:count], " of the others" if held else ""
    return Split(
        labeled=chosen,
        unlabeled=(*(name for name in rest if name not in set(chosen)), *_names(dataset, "extra")),
        val=val,
        test=_names(dataset, "test"),
        how=f"{how}; val: {which}; labeled: the first {count}{others} with a label file",
    )


def _names(dataset: Dataset, pool: str) -> tuple[str, ...]:
    return tuple(case.name for case in dataset.pool(pool))


def _ordered(dataset: Dataset, seed: int | None) -> tuple[list[str], str]:
    """Return the training pool in the data set's order, or shuffled from the sorted names; and in words."""
    names = sorted(_names(dataset, "train"))
    if seed is not None:
        shuffled = np.random.RandomState(seed).permutation(len(names))
        return [names[index] for index in shuffled], f"shuffled with seed {seed}"
    first = [name for name in dataset.order if name in set(names)]
    text = "in the data set's order" if dataset.order else "sorted by name"
    return list(dict.fromkeys([*first, *names])), text


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
        test=_names(dataset, "test"),
        how="by label files",
    )


def save_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write splits as the folds of one file."""
    folds = [split.model_dump() for split in splits]
    write_json(path, {"format": "semivox-splits", "version": 1, "folds": folds})


class _NnunetFold(BaseModel):
    model_config = ConfigDict(extra="forbid")
    train: tuple[str, ...]
    val: tuple[str, ...] = ()


class _File(BaseModel):
    format: Literal["semivox-splits"]
    version: Literal[1]
    folds: tuple[Split, ...] = Field(min_length=1)


_NNUNET = TypeAdapter(Annotated[list[_NnunetFold], Field(min_length=1)])


def load_split(path: Path, dataset: Dataset, fold: int | None) -> Split:
    """Read one fold of a file by `save_splits`, or of nnU-Net's `[{"train": [...], "val": [...]}, ...]`.

    In nnU-Net's form, train cases with a label file are labeled; the other train cases, those without a label
    file (nnU-Net's file cannot name them) and the extra pool are unlabeled. Cases with a label file that the
    fold does not name are left out. Without `fold` there has to be only one.
    """
    content = read_json(path)
    try:
        is_ours = isinstance(content, dict)
        folds = _File.model_validate(content).folds if is_ours else _NNUNET.validate_python(content)
    except ValidationError as error:
        raise _malformed(path, error) from error
    if fold is None and len(folds) > 1:
        do = "name the splits.json of the run that predicted"
        raise UserError("The split file has several folds", len(folds), "one fold", do, path)
    fold = fold or 0
    if not 0 <= fold < len(folds):
        found, expected = f"{len(folds)} folds", f"0 to {len(folds) - 1}"
        raise UserError(f"There is no fold {fold}", found, expected, path=path)
    chosen = folds[fold]
    split = chosen if isinstance(chosen, Split) else _from_nnunet(chosen, dataset, path, fold)
    _check(split, dataset, path)
    return split


def _from_nnunet(lists: _NnunetFold, dataset: Dataset, path: Path, fold: int) -> Split:
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
        test=tuple(name for name in _names(dataset, "test") if name not in named),
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


def _malformed(path: Path, error: ValidationError) -> UserError:
    first = error.errors()[0]
    found = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']} ({first['input']!r})"[:300]
    expected = (
        '{"format": "semivox-splits", "version": 1, "folds": [{"labeled": [...], "unlabeled": [...],'
        ' "val": [...], "test": [...]}]} or nnU-Net\'s [{"train": [...], "val": [...]}]'
    )
    return UserError("The file holds no splits", found, expected, None, path)
