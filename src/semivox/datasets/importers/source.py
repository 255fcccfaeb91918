"""What a source of scans holds before any of it is converted, and what the user says about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from semivox.datasets.listing import Pool
from semivox.errors import UserError, shortened
from semivox.io.dicom_series import Series
from semivox.io.formats import Array
from semivox.io.volume import Volume


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of the layouts that are converted."""

    images: tuple[str, ...] = ()  # pattern of the image files, one a channel, `[CHANNEL=]PATTERN`
    labels: tuple[str, ...] = ()  # pattern of the label files, `[CLASS=]PATTERN`; several are merged
    channels: tuple[str, ...] = ()  # their names
    classes: Mapping[str, int] = field(default_factory=dict)  # value on disk of each class
    series: str | None = None  # number, description or UID of the DICOM series to take
    root: Path | None = None  # folder that the paths of a table start from; None: that of the table
    train_list: Path | None = None  # file with the names of the training cases
    test_list: Path | None = None
    spacing_mm: tuple[float, float, float] = (0.625, 0.625, 0.625)  # of files that store none (h5)

    def __post_init__(self) -> None:
        if not all(0 < side < inf for side in self.spacing_mm):
            expected = "three lengths above 0, in mm"
            raise UserError("The voxel size is not positive", self.spacing_mm, expected, "--spacing-mm X Y Z")


class LabelFile(NamedTuple):
    """A label file; a `name` says that its voxels other than 0 are that class, else its values count."""

    path: Path
    name: str | None = None


class CaseSource(NamedTuple):
    """A case to convert: one image a channel, or one file or DICOM series; any number of label files."""

    name: str
    pool: Pool
    images: tuple[Path | Series, ...]
    labels: tuple[LabelFile, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files and folders that it is made from, labels last."""
        images = chain.from_iterable(i.files if isinstance(i, Series) else (i,) for i in self.images)
        return tuple(dict.fromkeys([*images, *(file.path for file in self.labels)]))


class Loaded(NamedTuple):
    """A case in memory: image (C, X, Y, Z), label (X, Y, Z) with the values on disk or None, and remarks."""

    image: Volume
    label: Array | None
    facts: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source holds."""

    cases: tuple[CaseSource, ...]
    load: Callable[[CaseSource], Loaded]
    channels: tuple[str, ...]  # names, in order; empty: `channel_0` and so on, by the first case
    classes: Mapping[str, int] | None  # values on disk of the foreground; None: each that the labels hold
    description: str  # for `dataset.json`
    order: tuple[str, ...] = ()  # training cases in the order that splits follow; empty: sorted by name
    notes: tuple[str, ...] = ()  # to tell the user
    facts: Mapping[str, Any] = field(default_factory=dict)  # for `import.json`
    ignore: int | None = None  # value of voxels that are not annotated, where the source tells it
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # for `dataset.json`


def read_lists(
    source: Path, options: ImportOptions, names: set[str]
) -> tuple[dict[str, Pool], tuple[str, ...]]:
    """Return the pool of each case, and the order of the training list (empty where there is none).

    The lists are those given, else `train.list` and `test.list` in `source` or beside it. A list that was
    found beside the cases may name more than are there: parts of published sets are common.
    """
    train = _read_list(source, "train.list", options.train_list)
    test = _read_list(source, "test.list", options.test_list)
    given = {*(train if options.train_list else ()), *(test if options.test_list else ())}
    for what, wrong in (
        ("Cases are in both lists", {*train} & {*test}),
        ("Cases are in neither list", names - {*train, *test} if train else set()),
        ("Cases of the list have no image", given - names),
    ):
        if wrong:
            raise UserError(what, shortened(sorted(wrong), 5), None, "correct the lists", source)
    return {name: "test" if name in test else "train" for name in names}, train


def _read_list(source: Path, name: str, given: Path | None) -> tuple[str, ...]:
    """Read case names, one a line, also in the forms CASE/mri_norm2.h5 and CASE.h5; () without a file."""
    beside = (path for path in (source / name, source.resolve().parent / name) if path.is_file())
    path = given or next(beside, None)
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what, expected = "The list of cases cannot be read", "a text file, one case name a line"
        raise UserError(what, error, expected, path=path) from error
    names = (line.strip().removesuffix("/mri_norm2.h5").removesuffix(".h5") for line in lines)
    return tuple(dict.fromkeys(name for name in names if name))
