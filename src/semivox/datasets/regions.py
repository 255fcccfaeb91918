"""Regions: named unions of classes that are scored beside them, such as BraTS' whole tumor and tumor core."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semivox.errors import UserError

Regions = Mapping[str, tuple[int, ...]]  # values on disk of the classes of each region


def read_regions(
    declared: Any, class_names: Sequence[str], class_values: Sequence[int], path: Path | None = None
) -> dict[str, tuple[int, ...]]:
    """Check a declaration such as {"whole_tumor": [1, 2, 4], "tumor_core": [1, 4]}.

    Args:
        declared: values on disk of each region; None: no regions.
        class_names: of the data set; a region has a name of its own.
        class_values: of the data set; a region takes foreground values from these.
        path: the file that declares them, for messages.

    Raises:
        UserError: another form, the name of a class, no or unknown values.
    """
    if declared is None:
        return {}
    if not isinstance(declared, Mapping) or not all(isinstance(v, list | tuple) for v in declared.values()):
        raise _wrong(path, f"regions: {declared!r}", class_values)
    for name, values in declared.items():
        if name in class_names or not values or not set(values) <= set(class_values) - {0}:
            raise _wrong(path, f"{name}: {values!r}", class_values)
    return {str(name): tuple(dict.fromkeys(values)) for name, values in declared.items()}


def parse_regions(texts: Sequence[str]) -> dict[str, list[int]] | None:
    """Read `NAME=1,2,4`, once a region; None if there are none.

    Raises:
        UserError: another form.
    """
    found: dict[str, list[int]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        try:
            found[name.strip()] = [int(value) for value in values.split(",")]
        except ValueError as error:
            raise UserError(
                "A region is malformed", found=text, expected="NAME=VALUE,VALUE, e.g. tumor_core=1,4"
            ) from error
    return found or None


def _wrong(path: Path | None, found: str, class_values: Sequence[int]) -> UserError:
    return UserError(
        "A region cannot be used",
        path=path,
        found=found[:200],
        expected="a name that no class has, and values among "
        + ", ".join(str(value) for value in class_values if value),
        do='declare it in dataset.json, "regions": {"NAME": [1, 2]}, or as --region NAME=1,2',
    )
