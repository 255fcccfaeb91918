"""Who is labeled, unlabeled, for validation and for testing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semivox.config import SplitConfig
from semivox.datasets.dataset import Case, Dataset, open_dataset
from semivox.datasets.splits import Split, load_split, make_split, save_splits
from semivox.errors import UserError


def dataset(train: str = "abcdefgh", without_label: str = "", test: str = "yz", extra: str = "u") -> Dataset:
    cases = [
        Case(name, (Path(f"{name}.nii.gz"),), None if name in without_label + extra else Path(name), pool)
        for pool, group in (("extra", extra), ("test", test), ("train", train))
        for name in group
    ]
    return Dataset("toy", Path("toy"), ("MR",), ("background", "organ"), (0, 1), tuple(cases))


def roles(split: Split) -> tuple[str, str, str, str]:
    labeled, unlabeled, val, test = map("".join, (split.labeled, split.unlabeled, split.val, split.test))
    return labeled, unlabeled, val, test


@pytest.mark.parametrize(
    ("cases", "config", "expected"),
    [
        ({}, {"labeled": 3, "val": 2}, ("abc", "defu", "gh", "yz")),
        ({"train": "hgfedcba"}, {"labeled": 3, "val": 2}, ("abc", "defu", "gh", "yz")),
        ({"without_label": "adh"}, {"labeled": 2, "val": 2}, ("bc", "adehu", "fg", "yz")),
        ({"without_label": "c"}, {}, ("abdefgh", "cu", "", "yz")),
        ({"without_label": "abcd"}, {"labeled": 0.5}, ("efgh", "abcdu", "", "yz")),
    ],
)
def test_validation_from_the_end_and_labeled_from_the_start(
    cases: dict[str, str], config: dict[str, float], expected: tuple[str, ...]
) -> None:
    """Cases without a label file are unlabeled wherever they stand; the default is every label."""
    assert roles(make_split(dataset(**cases), SplitConfig(**config))) == expected


@pytest.mark.parametrize(
    ("fraction", "val", "count"),
    [(0.5, 0, 4), (0.5, 1, 4), (0.3, 0, 2), (0.01, 0, 1), (0.99, 0, 8), (0.25, 2, 2), (0.2, 0, 2)],
)
def test_fraction_of_the_cases_that_are_not_for_validation(fraction: float, val: int, count: int) -> None:
    assert len(make_split(dataset(), SplitConfig(labeled=fraction, val=val)).labeled) == count


def test_seed_shuffles_first_and_is_fixed_forever() -> None:
    split = make_split(dataset(), SplitConfig(labeled=3, val=2, seed=0))
    order = "".join("abcdefgh"[i] for i in np.random.RandomState(0).permutation(8))
    assert order == "gcbhdafe"
    assert roles(split) == (order[:3], order[3:6] + "u", order[6:], "yz")
    assert make_split(dataset(), SplitConfig(labeled=3, val=2, seed=1)) != split


def test_how_tells_the_recipe() -> None:
    how = make_split(dataset(), SplitConfig(labeled=3, val=2, seed=5)).how
    assert all(part in how for part in ("seed 5", "last 2", "first 3"))
    assert "sorted" in make_split(dataset(), SplitConfig(labeled=3)).how


@pytest.mark.parametrize("config", [SplitConfig(), SplitConfig(labeled=2, val=1), SplitConfig(labeled=0.5)])
def test_no_label_file_at_all(config: SplitConfig) -> None:
    with pytest.raises(UserError, match="No case has a label file") as error:
        make_split(dataset(without_label="abcdefgh"), config)
    assert "0 of 8" in str(error.value)


@pytest.mark.parametrize(
    ("labeled", "val", "wanted"),
    [(7, 2, "at least 9"), (9, 0, "at least 9"), (None, 8, "at least 9"), (1, 20, "21")],
)
def test_more_asked_than_there_are(labeled: int | None, val: int, wanted: str) -> None:
    with pytest.raises(UserError, match="not enough training cases") as error:
        make_split(dataset(), SplitConfig(labeled=labeled, val=val))
    assert "8 of 8" in str(error.value)
    assert wanted in str(error.value.expected)
    with pytest.raises(UserError, match="not enough"):
        make_split(dataset(without_label="abcde"), SplitConfig(labeled=0.5))


def k_folds(data: Dataset, folds: int, **config: float) -> list[Split]:
    return [make_split(data, SplitConfig(fold=fold, folds=folds, **config)) for fold in range(folds)]


def test_folds_validate_on_every_labeled_file_once() -> None:
    splits = k_folds(dataset(without_label="d"), 3, labeled=2)
    assert [roles(split) for split in splits] == [
        ("bc", "dfgu", "aeh", "yz"),
        ("ac", "deghu", "bf", "yz"),
        ("ab", "defhu", "cg", "yz"),
    ]
    assert "fold 1 of 3" in splits[1].how
    seen = sorted(name for split in splits for name in split.val)
    assert "".join(seen) == "abcefgh"
    assert k_folds(dataset(), 3, labeled=2, seed=1) != k_folds(dataset(), 3, labeled=2)
    assert [len(split.labeled) for split in k_folds(dataset(), 4)] == [6, 6, 6, 6]


def test_impossible_folds() -> None:
    with pytest.raises(UserError, match="number of folds"):
        make_split(dataset(without_label="abcd"), SplitConfig(fold=1))
    with pytest.raises(UserError, match="not enough"):
        k_folds(dataset(), 2, labeled=5)


def test_saved_splits_come_back(tmp_path: Path) -> None:
    splits = k_folds(dataset(), 2, labeled=2)
    save_splits(tmp_path / "splits.json", splits)
    assert [load_split(tmp_path / "splits.json", dataset(), fold) for fold in (0, 1)] == splits
    stored = json.loads((tmp_path / "splits.json").read_text())
    assert (stored["format"], stored["version"], len(stored["folds"])) == ("semivox-splits", 1, 2)
    assert set(stored["folds"][0]) == {"labeled", "unlabeled", "val", "test", "how"}
    config = SplitConfig(file=str(tmp_path / "splits.json"), fold=1)
    assert make_split(dataset(), config) == splits[1]


def write(tmp_path: Path, content: object) -> Path:
    (tmp_path / "splits.json").write_text(json.dumps(content))
    return tmp_path / "splits.json"


def ours(**lists: str) -> dict[str, object]:
    fold = {"labeled": "a", **lists}
    folds = [{role: list(names) for role, names in fold.items()}]
    return {"format": "semivox-splits", "version": 1, "folds": folds}


@pytest.mark.parametrize(
    ("fold", "expected"),
    [
        ({"train": "abc", "val": "fg"}, ("abc", "du", "fg", "yz")),
        ({"train": "abcd", "val": "fg"}, ("abc", "du", "fg", "yz")),
        ({"train": "ab"}, ("ab", "du", "", "yz")),
        ({"train": "ay", "val": "b"}, ("ay", "du", "b", "z")),
    ],
)
def test_nnunet_splits(tmp_path: Path, fold: dict[str, str], expected: tuple[str, ...]) -> None:
    """Case d has no label file, u is of the extra pool; e and others that no list names are left out."""
    content = [{role: list(names) for role, names in fold.items()}]
    assert roles(load_split(write(tmp_path, content), dataset(without_label="d"), 0)) == expected


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (ours(unlabeled="ba"), "a in labeled and unlabeled"),
        (ours(val="bb"), "b in val and val"),
        (ours(val="c", test="yc"), "c in val and test"),
        ([{"train": ["a", "b"], "val": ["b"]}], "b in labeled and val"),
        ([{"train": ["a", "d"], "val": ["d"]}], "d in unlabeled and val"),
    ],
)
def test_a_case_with_two_roles(tmp_path: Path, content: object, found: str) -> None:
    with pytest.raises(UserError, match="two roles") as error:
        load_split(write(tmp_path, content), dataset(without_label="d"), 0)
    assert error.value.found == found


@pytest.mark.parametrize("role", ["labeled", "unlabeled", "val", "test", "train"])
def test_unknown_name_with_the_nearest(tmp_path: Path, role: str) -> None:
    cases = tuple(Case(name, (Path(name),), Path(name), "train") for name in ("case_001", "case_002"))
    data = Dataset("toy", Path("toy"), ("MR",), ("background", "organ"), (0, 1), cases)
    fold = {"labeled": ["case_002"], **{role: ["case001"]}}
    content = [{"train": ["case001"]}] if role == "train" else {**ours(), "folds": [fold]}
    path = write(tmp_path, content)
    with pytest.raises(UserError, match="Unknown case: case001") as error:
        load_split(path, data, 0)
    assert error.value.do == "did you mean case_001?"
    assert error.value.path == path


@pytest.mark.parametrize(
    ("content", "problem", "found"),
    [
        (ours(labeled="ad"), "no label file", "d"),
        (ours(val="cd"), "no label file", "d"),
        (ours(labeled=""), "no labeled case", None),
        ([{"train": ["d"], "val": []}], "no labeled case", None),
    ],
)
def test_labeled_and_val_need_label_files(
    tmp_path: Path, content: object, problem: str, found: str | None
) -> None:
    with pytest.raises(UserError, match=problem) as error:
        load_split(write(tmp_path, content), dataset(without_label="d"), 0)
    assert error.value.found == found
    assert roles(load_split(write(tmp_path, ours(unlabeled="d")), dataset(without_label="d"), 0))[1] == "d"


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        "abc",
        [["a"]],
        {**ours(), "version": 2},
        {**ours(), "format": "other"},
        {**ours(), "folds": []},
        {**ours(), "folds": [{"labeled": "a"}]},
        {**ours(), "folds": [{"unlabeled": ["a"]}]},
        [{"train": [1], "val": []}],
        [{"training": ["a"]}],
    ],
)
def test_malformed_file(tmp_path: Path, content: object) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError, match="holds no splits") as error:
        load_split(path, dataset(), 0)
    assert error.value.path == path
    assert "pydantic" not in str(error.value)
    assert "\n" not in str(error.value.found)


def test_missing_fold_and_file(tmp_path: Path) -> None:
    path = write(tmp_path, ours())
    for fold in (1, -1):
        with pytest.raises(UserError, match=f"no fold {fold}"):
            load_split(path, dataset(), fold)
    with pytest.raises(UserError, match="cannot be read"):
        load_split(tmp_path / "none.json", dataset(), 0)


@pytest.mark.real
def test_real_left_atrium_is_the_published_order(real_data: Path) -> None:
    data = open_dataset(real_data / "la2018")
    published = (real_data / "la2018" / "train.list").read_text().split()
    split = make_split(data, SplitConfig(labeled=8, val=10))
    assert list(split.labeled) == published[:8]
    assert list(split.unlabeled) == published[8:70]
    assert list(split.val) == published[70:]
    assert len(split.test) == 10


@pytest.mark.real
def test_real_hippocampus(real_data: Path) -> None:
    data = open_dataset(real_data / "hippocampus")
    split = make_split(data, SplitConfig(labeled=0.1, val=20))
    trained = sorted(path.name.removesuffix(".nii.gz") for path in (data.root / "imagesTr").iterdir())
    assert list(split.labeled) == trained[:14]
    assert list(split.val) == trained[-20:]
    assert len(split.unlabeled) == 126
