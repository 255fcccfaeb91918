"""What the user can say about a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from semivox.datasets.layouts import Pool, some
from semivox.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of the layouts that are converted; a layout does not look at those it has no use for.

    Attributes:
        images: pattern of the image files, one a channel, `[CHANNEL=]PATTERN`.
        labels: pattern of the label files, `[CLASS=]PATTERN`; several are merged.
        channels: names of the channels.
        classes: value on disk of each class.
        series: number, description or UID of the DICOM series to take.
        root: folder that the paths of a table start from; None: that of the table.
        train_list: file with the names of the training cases.
        test_list: file with the names of the test cases.
        spacing_mm: voxel size of files that store none (h5).
    """

    images: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    series: str | None = None
    root: Path | None = None
    train_list: Path | None = None
    test_list: Path | None = None
    spacing_mm: tuple[float, float, float] = (0.625, 0.625, 0.625)

    def as_dict(self) -> dict[str, Any]:
        """Give plain values, for the record."""
        return {
            key: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Lists:
    """Names of training and test cases; None where there is no list."""

    train: tuple[str, ...] | None
    test: tuple[str, ...]

    def pool(self, name: str) -> Pool:
        """Give the pool of a case."""
        return "test" if name in self.test else "train"

    @property
    def order(self) -> tuple[str, ...]:
        """The order of the training list."""
        return self.train or ()


def read_lists(source: Path, options: ImportOptions, names: set[str]) -> Lists:
    """Read the lists of cases: those given, else `train.list` and `test.list` in `source` or beside it.

    A list that was found beside the cases may name more than are there: parts of published sets are common.

    Raises:
        UserError: a list that cannot be read; a case in both lists or in neither; a name without a case in a
            list that was given.
    """
    train = _read_list(source, "train.list", options.train_list)
    test = _read_list(source, "test.list", options.test_list)
    given = {
        name
        for path, listed in ((options.train_list, train), (options.test_list, test))
        if path is not None
        for name in listed or ()
    }
    both = sorted(set(train or ()) & set(test or ()))
    neither = sorted(names - {*train, *(test or ())}) if train is not None else []
    for wrong, what, expected in (
        (both, "Cases are in both lists", "each case in one list"),
        (neither, "Cases are in neither list", "each case in the training or in the test list"),
        (sorted(given - names), "Cases of the list have no image", "an image of each of them"),
    ):
        if wrong:
            raise UserError(what, path=source, found=some(wrong), expected=expected, do="correct the lists")
    return Lists(train, test or ())


def _read_list(source: Path, name: str, given: Path | None) -> tuple[str, ...] | None:
    """Read case names, one a line, also in the forms CASE/mri_norm2.h5 and CASE.h5; None without a file."""
    beside = [path for path in (source / name, source.resolve().parent / name) if path.is_file()]
    path = given or next(iter(beside), None)
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "The list of cases cannot be read",
            path=path,
            found=str(error),
            expected="a text file, one case name a line",
            do="check the path",
        ) from error
    names = (line.strip().removesuffix("/mri_norm2.h5").removesuffix(".h5") for line in lines)
    return tuple(dict.fromkeys(name for name in names if name))
