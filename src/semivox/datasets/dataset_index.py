"""The form of `dataset.json` that semivox writes itself: every case with its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from semivox.datasets.layouts import Case, Pool, is_file
from semivox.errors import UserError

if TYPE_CHECKING:
    from semivox.datasets.dataset import Dataset

_PLAIN = {"name", "channels", "class_names", "class_values", "ignore_value", "order", "regions"}


class _IndexCase(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    pool: Pool
    images: tuple[str, ...] = Field(min_length=1)
    label: str | None = None


class _Index(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    root: str
    channels: tuple[str, ...] = Field(min_length=1)
    class_names: tuple[str, ...] = Field(min_length=2)
    class_values: tuple[int, ...]
    ignore_value: int | None = None
    order: tuple[str, ...] = ()
    regions: dict[str, tuple[int, ...]] = {}
    cases: tuple[_IndexCase, ...]

    @model_validator(mode="after")
    def _check_classes(self) -> _Index:
        values = self.class_values
        if len(values) != len(self.class_names) or len(set(values)) != len(values) or values[0] != 0:
            raise ValueError("class_values: one for each of class_names, all different, 0 first")
        return self


def index_of(dataset: Dataset, base: Path) -> dict[str, Any]:
    """What is written of a data set; paths inside `base` are relative to it, others absolute."""

    def text(path: Path) -> str:
        return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()

    cases = tuple(
        _IndexCase(
            name=case.name,
            pool=case.pool,
            images=tuple(map(text, case.images)),
            label=text(case.label) if case.label else None,
        )
        for case in dataset.cases
    )
    plain = {name: getattr(dataset, name) for name in _PLAIN}
    return _Index(root=text(dataset.root), cases=cases, **plain).model_dump()


def read_index(meta: dict[str, Any], path: Path) -> dict[str, Any]:
    """Give what `Dataset` is made of; a label file that is gone makes its case an unlabeled one.

    Args:
        meta: the content of the file.
        path: where it is.

    Raises:
        UserError: damaged, or of another version.
    """
    try:
        if meta.get("version") != 1:
            raise ValueError(f"version {meta.get('version')}")
        index = _Index.model_validate({k: v for k, v in meta.items() if k not in ("format", "version")})
    except (ValidationError, ValueError) as error:
        raise UserError(
            "The data set's index is damaged or of another version",
            path=path,
            found=" ".join(str(error).split())[:300],
            expected="a version 1 index, as semivox import writes it",
            do="run semivox import again",
        ) from error
    base = path.parent
    cases = []
    for case in index.cases:
        label = base / case.label if case.label else None
        images = tuple(base / image for image in case.images)
        cases.append(Case(case.name, images, label if label and is_file(label) else None, case.pool))
    return {"cases": tuple(cases), "root": base / index.root, **index.model_dump(include=_PLAIN)}


_PLAIN = {"name", "channels", "class_names", "class_values", "ignore_value", "order", "regions"}
