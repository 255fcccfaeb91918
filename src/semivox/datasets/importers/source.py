"""What a source of scans holds before any of it is converted, and what the user says about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from semivox.datasets.listing import Pool, name_problem, printable
from semivox.errors import UserError, shortened
from semivox.io.formats import Array
from semivox.io.volume import Volume


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of the layouts that are converted; a layout ignores those it has no use for.

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


def plain(options: Any) -> dict[str, Any]:
    """Return the options of an import (a dataclass) as JSON would return them, for its record."""
    kinds = {tuple: list, type(Path()): str}
    return {key: kinds.get(type(value), lambda same: same)(value) for key, value in asdict(options).items()}


@dataclass(frozen=True)
class Loaded:
    """A case in memory: image (C, X, Y, Z), label (X, Y, Z) with the values on disk or None, and remarks."""

    image: Volume
    label: Array | None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseSource:
    """A case to convert.

    Attributes:
        name: unique.
        pool: where it goes.
        labeled: whether `load` returns a label.
        load: reads it.
        files: files and folders that it is made from, labels last.
    """

    name: str
    pool: Pool
    labeled: bool
    load: Callable[[], Loaded]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        cases: to convert.
        channels: names, in order; empty: `channel_0` and so on, by the first case.
        classes: value on disk of each foreground class; None: one for each value that the labels hold.
        description: for `dataset.json`.
        order: training cases in the order that splits follow; empty: sorted by name.
        notes: to tell the user.
        facts: for `import.json`.
        ignore: the label value of voxels that are not annotated, where the source tells it.
        regions: for `dataset.json`.
    """

    cases: tuple[CaseSource, ...]
    channels: tuple[str, ...]
    classes: Mapping[str, int] | None
    description: str
    order: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    ignore: int | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def check(self, out: Path) -> None:
        """Refuse names that are taken or no file names, and a source without training cases or labels."""
        names = Counter(case.name for case in self.cases)
        twice = sorted(name for name, count in names.items() if count > 1)
        odd = [f"{printable(name)}: {why}" for name in sorted(names) if (why := name_problem(name))]
        if twice:
            do = "rename the files of one of them, or make the pattern tell them apart"
            raise UserError("Two cases have the same name", shortened(twice, 5), "unique names", do, out)
        if not any(case.pool == "train" for case in self.cases):
            found, do = shortened(sorted(names), 5) or "no case at all", "check the source and the lists"
            raise UserError("There is no training case", found, None, do, out)
        if self.classes is None and not any(case.labeled for case in self.cases):
            raise no_class(out, "no label file")
        if odd:
            what = "A case has a name that cannot be a file name"
            raise UserError(what, shortened(odd, 3), "a short name in UTF-8", "rename it", out)


def no_class(out: Path, found: str) -> UserError:
    """Return the error for labels that nothing can be learnt from."""
    do = "check the pattern of the labels, or declare the classes: --class NAME=VALUE"
    return UserError("No label holds a class", found, "at least one class", do, out)


@dataclass(frozen=True)
class Lists:
    """Names of training and test cases; None where there is no list."""

    train: tuple[str, ...] | None
    test: tuple[str, ...]

    def pool(self, name: str) -> Pool:
        """Return the pool of a case."""
        return "test" if name in self.test else "train"

    @property
    def order(self) -> tuple[str, ...]:
        """The order of the training list."""
        return self.train or ()


def read_lists(source: Path, options: ImportOptions, names: set[str]) -> Lists:
    """Read the lists of cases: those given, else `train.list` and `test.list` in `source` or beside it.

    A list that was found beside the cases may name more than are there: parts of published sets are common.
    """
    train = _read_list(source, "train.list", options.train_list)
    test = _read_list(source, "test.list", options.test_list) or ()
    given = {*(train or () if options.train_list else ()), *(test if options.test_list else ())}
    for what, wrong in (
        ("Cases are in both lists", {*(train or ())} & {*test}),
        ("Cases are in neither list", set() if train is None else names - {*train, *test}),
        ("Cases of the list have no image", given - names),
    ):
        if wrong:
            raise UserError(what, shortened(sorted(wrong), 5), None, "correct the lists", source)
    return Lists(train, test)


def _read_list(source: Path, name: str, given: Path | None) -> tuple[str, ...] | None:
    """Read case names, one a line, also in the forms CASE/mri_norm2.h5 and CASE.h5; None without a file."""
    beside = [path for path in (source / name, source.resolve().parent / name) if path.is_file()]
    path = given or next(iter(beside), None)
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what, expected = "The list of cases cannot be read", "a text file, one case name a line"
        raise UserError(what, error, expected, "check the path", path) from error
    names = (line.strip().removesuffix("/mri_norm2.h5").removesuffix(".h5") for line in lines)
    return tuple(dict.fromkeys(name for name in names if name))
