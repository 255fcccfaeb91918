"""Cases of any source become NIfTI files and a `dataset.json` in nnU-Net raw form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np

from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.importers.found import CaseSource, Found, Loaded, check_cases, no_class
from semivox.datasets.layouts import FOLDERS, some
from semivox.errors import UserError
from semivox.files import read_json, write_json
from semivox.io.formats import Array
from semivox.io.volume import list_values, read_values, write_map
from semivox.progress import Progress

RECORD = "import.json"
_IMAGE_TYPES = (np.uint8, np.int16, np.uint16)
_LABEL_TYPES = (np.uint8, np.int16, np.int32)
_FOLDERS = {pool: (images, labels or "labelsUn") for pool, images, labels in FOLDERS}


def convert(
    found: Found,
    out: Path,
    *,
    settings: Mapping[str, Any],
    ignore: int | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Write `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and so on, and `dataset.json` at the end.

    Whole files of an earlier call with the same settings are kept, so an interrupted import goes on where it
    stopped. Values are stored as integers where all of them are, else as float32.

    Args:
        found: the cases.
        out: the new data set.
        settings: everything that the result depends on; kept in `import.json`.
        ignore: the label value of voxels that are not annotated.
        name: of the data set; None: that of `out`.
        progress: called with (done, total, case name).

    Raises:
        UserError: no training case or no class; two cases of one name; files of another import in `out`;
            label values that are not declared; and what reading a case says.
    """
    ignore = found.ignore if ignore is None else ignore
    check_cases(found, out)
    record = {"settings": dict(settings), "notes": list(found.notes), **found.facts}
    keep = _may_keep(found, out, record)
    values: set[int] = set()
    facts: dict[str, Any] = read_json(out / RECORD).get("cases", {}) if keep else {}
    for done, case in enumerate(found.cases, start=1):
        label_path = _label_path(out, case)
        if not (keep and _images(out, case) and (label_path.is_file() or not case.labeled)):
            loaded = case.load()
            values |= _check(case, loaded, found, ignore)
            if not keep and done == 1:
                _clear(found, out)
                write_json(out / RECORD, record)
            _write(case, loaded, out)
            facts.update({case.name: dict(loaded.facts)} if loaded.facts else {})
        elif case.labeled and found.classes is None:
            values |= set(np.unique(read_values(label_path).array).tolist())
        if progress is not None:
            progress(done, len(found.cases), case.name)
    classes = found.classes if found.classes is not None else _named(values - {0} - {ignore})
    if not classes:
        raise no_class(out, "labels that are 0 everywhere")
    train = [case.name for case in found.cases if case.pool == "train"]
    channels = found.channels or tuple(
        f"channel_{index}" for index in range(len(_images(out, found.cases[0])))
    )
    meta: dict[str, Any] = {
        "name": name or out.resolve().name,
        "description": found.description,
        "channel_names": {str(index): channel for index, channel in enumerate(channels)},
        "labels": {"background": 0, **classes, **({"ignore": ignore} if ignore is not None else {})},
        "numTraining": len(train),
        "file_ending": ".nii.gz",
    }
    if found.order:
        meta["order"] = [name for name in found.order if name in set(train)]
    if found.regions:
        meta["regions"] = {key: list(members) for key, members in found.regions.items()}
    write_json(out / RECORD, {**record, **({"cases": facts} if facts else {})})
    write_json(out / "dataset.json", meta)
    return open_dataset(out)


def compact(values: Array, types: Sequence[type[np.generic]] = _IMAGE_TYPES) -> Array:
    """Give the values in the first integer type that holds them all exactly, else as float32."""
    low, high = float(values.min()), float(values.max())
    for dtype in types:
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        if limits.min <= low and high <= limits.max:
            whole = values.astype(dtype)
            return whole if values.dtype.kind in "iub" or np.array_equal(whole, values) else _float(values)
    return _float(values)


def _float(values: Array) -> Array:
    return np.asarray(values, np.float32)


def _check(case: CaseSource, loaded: Loaded, found: Found, ignore: int | None) -> set[int]:
    """Give the values of the label; refuse another number of channels and values that are not declared."""
    count = len(loaded.image.array)
    if found.channels and count != len(found.channels):
        raise UserError(
            f"Case {case.name} has another number of channels than the data set",
            path=case.origin,
            found=count,
            expected=f"{len(found.channels)} ({', '.join(found.channels)})",
            do="give one --channel NAME for each channel, in their order",
        )
    if loaded.label is None:
        return set()
    values = set(np.unique(loaded.label).tolist())
    if found.classes is not None and (unknown := sorted(values - {0, ignore, *found.classes.values()})):
        raise UserError(
            f"The label of case {case.name} holds values that are no class",
            path=case.origin,
            found=list_values(loaded.label[np.isin(loaded.label, unknown)]),
            expected="0 and " + ", ".join(f"{value} ({key})" for key, value in found.classes.items()),
            do="declare every class with --class NAME=VALUE, voxels without annotation with --ignore",
        )
    return values


def _write(case: CaseSource, loaded: Loaded, out: Path) -> None:
    """Write the files of a case, the label first: where the last image is, everything is."""
    if loaded.label is not None:
        write_map(_label_path(out, case), compact(loaded.label, _LABEL_TYPES), loaded.image.affine)
    for index, channel in enumerate(loaded.image.array):
        write_map(_image_path(out, case, index), compact(channel), loaded.image.affine)


def _named(values: AbstractSet[int | None]) -> dict[str, int]:
    ordered = sorted(value for value in values if value is not None)
    return {"foreground": ordered[0]} if len(ordered) == 1 else {f"class_{v}": v for v in ordered}


def _image_path(out: Path, case: CaseSource, index: int) -> Path:
    return out / _FOLDERS[case.pool][0] / f"{case.name}_{index:04d}.nii.gz"


def _label_path(out: Path, case: CaseSource) -> Path:
    return out / _FOLDERS[case.pool][1] / f"{case.name}.nii.gz"


def _images(out: Path, case: CaseSource) -> list[Path]:
    """List the image files of a case that are there."""
    folder = out / _FOLDERS[case.pool][0]
    return sorted(folder.glob(f"{_escaped(case.name)}_[0-9][0-9][0-9][0-9].nii.gz"))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _may_keep(found: Found, out: Path, record: Mapping[str, Any]) -> bool:
    """Tell whether files that are in `out` come from a call with the same settings.

    Raises:
        UserError: `out` holds images or labels of cases that this import does not have.
    """
    path = out / RECORD
    keep = path.is_file() and read_json(path).get("settings") == record["settings"]
    expected = {(case.pool, case.name) for case in found.cases}
    strangers = []
    for pool, folders in _FOLDERS.items():
        for folder, tail in zip(folders, ("_0000", ""), strict=True):
            for file in sorted((out / folder).glob("[!.]*.nii.gz")) if (out / folder).is_dir() else ():
                stem = file.name.removesuffix(".nii.gz")
                case = stem[: -len(tail)] if tail else stem
                if (pool, case) not in expected:
                    strangers.append(f"{folder}/{file.name}")
    if strangers or (not keep and (out / "dataset.json").is_file() and not path.is_file()):
        raise UserError(
            "The output folder holds another data set",
            path=out,
            found=some(strangers) or "a dataset.json that this import did not write",
            expected="an empty folder, or one of an earlier call of the same import",
            do="choose another output folder",
        )
    return keep


def _clear(found: Found, out: Path) -> None:
    """Remove what a call with other settings wrote, so that an interrupted import keeps nothing of it."""
    (out / "dataset.json").unlink(missing_ok=True)
    for case in found.cases:
        for path in (*_images(out, case), _label_path(out, case)):
            path.unlink(missing_ok=True)
