"""The files that a case is made from: which may be opened, and whether they are still the same.

A plan (`measured` in the manifest) and a store (`store.json`) keep for each case
{"image": [...], "label": ...}: the signature of each image file, and of the label if that was opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semivox.errors import UserError
from semivox.files import signature

if TYPE_CHECKING:
    from semivox.datasets.dataset import Case, Dataset


def visible_cases(dataset: Dataset, names: Sequence[str], labeled: Sequence[str]) -> list[Case]:
    """Return the named cases without the path of the label, except for those that are `labeled`.

    Raises:
        UserError: a labeled case has no label file.
    """
    for case in map(dataset.case, labeled):
        if case.label is None:
            what, do = f"The labeled case {case.name} has no label file", "add it, or correct the split"
            raise UserError(what, None, "one for every labeled and validation case", do)
    cases, shown = map(dataset.case, names), set(labeled)
    return [case if case.name in shown else replace(case, label=None) for case in cases]


def sources_of(case: Case, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the signatures of a case's files.

    Files that have the same size and time as in `known`, earlier signatures, are not read again.
    """
    marks, label = iter((known or {}).get("image", ())), (known or {}).get("label")
    return {
        "image": [signature(path, next(marks, None)) for path in case.images],
        "label": None if case.label is None else signature(case.label, label),
    }


def hashes(case: Case, sources: Mapping[str, Any]) -> dict[Path, str]:
    """Return the content hash of each of a case's files for which `sources` have a signature."""
    pairs = zip((*case.images, case.label), (*sources["image"], sources["label"]), strict=False)
    return {path: mark[-1] for path, mark in pairs if path is not None and mark is not None}


def changed_files(case: Case, known: Mapping[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """Return the signatures as they are now, and the files whose content is not that of `known`."""
    now = sources_of(case, known)
    before, after = hashes(case, known), hashes(case, now)
    return now, [path for path in before if before[path] != after[path]]


def relative(path: Path, root: Path) -> str:
    """Return a path as text, relative to `root` if it is inside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
