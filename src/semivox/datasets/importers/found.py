"""What a source of scans holds, before any of it is converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semivox.datasets.layouts import Pool, some
from semivox.errors import UserError
from semivox.io.formats import Array
from semivox.io.volume import Volume


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
        labeled: whether `load` gives a label.
        load: reads it.
        origin: a file or folder of its own, for messages about its label.
    """

    name: str
    pool: Pool
    labeled: bool
    load: Callable[[], Loaded]
    origin: Path


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


def check_cases(found: Found, out: Path) -> None:
    """Refuse names that are taken or no file names, and a source without training cases or labels."""
    names = Counter(case.name for case in found.cases)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise UserError(
            "Two cases have the same name",
            path=out,
            found=some(twice),
            expected="a name for each case, unique over training, test and unlabeled ones",
            do="rename the files of one of them, or make the pattern tell them apart",
        )
    if not any(case.pool == "train" for case in found.cases):
        raise UserError(
            "There is no training case",
            path=out,
            found=some(sorted(names)) or "no case at all",
            expected="at least one",
            do="check the source and the lists",
        )
    if found.classes is None and not any(case.labeled for case in found.cases):
        raise no_class(out, "no label file")
    if odd := sorted(name for name in names if not name or "/" in name or name.startswith(".")):
        raise UserError(
            "A case has a name that cannot be a file name",
            path=out,
            found=some(odd),
            expected="letters, digits, dots inside, - and _",
            do="rename it",
        )


def no_class(out: Path, found: str) -> UserError:
    """Say that nothing could be learnt from these labels."""
    return UserError(
        "No label holds a class",
        path=out,
        found=found,
        expected="at least one class",
        do="check the pattern of the labels, or declare the classes: --class NAME=VALUE",
    )
