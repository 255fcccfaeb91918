"""Write the cases of any source as NIfTI files and a `dataset.json` in nnU-Net raw form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semivox.datasets.case import name_errors
from semivox.datasets.dataset import Dataset, is_index, open_dataset
from semivox.datasets.importers.source import CaseSource, Found
from semivox.errors import UserError, shortened
from semivox.files import locked, read_json, write_json
from semivox.io.formats import Array, list_values
from semivox.io.volume import write_map
from semivox.manifest import Manifest
from semivox.progress import Progress

RECORD = "import.json"
_SUFFIX = {"train": "Tr", "test": "Ts", "extra": "Un"}  # of the folders of each pool
_TYPES = (np.uint8, np.int16, np.uint16, np.int32)


def convert(
    found: Found, source: Path, out: Path, settings: Mapping[str, Any], progress: Progress
) -> Dataset:
    """Write `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and so on, and `dataset.json` at the end.

    Cases of an earlier call whose source files are unchanged are kept, so an interrupted import resumes;
    changed ones are written anew, and files of cases that the source no longer has are removed. `settings`
    are everything that the result depends on beside the source files; they are kept in `import.json`.
    """
    names = [case.name for case in found.cases]
    for error in name_errors(names, source):
        raise error
    if not any(case.pool == "train" for case in found.cases):
        there, do = shortened(sorted(names), 5) or "no case at all", "check the source and the lists"
        raise UserError("There is no training case", there, None, do, source)
    _check_classes(found, source)
    with locked(out):
        earlier, cases = _earlier_cases(out, settings), dict[str, Any]()
        for done, case in enumerate(found.cases, start=1):
            cases[case.name] = _write_case(case, found, out, earlier.get(case.name, {}))
            write_json(out / RECORD, {"settings": settings, "cases": {**earlier, **cases}})
            progress(done, len(names), case.name)
        wrote = {file for entry in cases.values() for file in entry["wrote"]}
        _remove(out, [file for file in Manifest(out).files() if "/" in file and file not in wrote])
        changed = [name for name in names if name in earlier and cases[name] != earlier[name]]
        gone = sorted(earlier.keys() - cases.keys())
        remarks = {
            **found.remarks,
            "rewritten": ("written anew, because their source files have changed", changed),
            "removed": ("removed, because the source no longer has them", gone),
        }
        notes = [*found.notes, *(f"{what}: {shortened(them, 10)}" for what, them in remarks.values() if them)]
        listed = {key: them for key, (_, them) in remarks.items()}
        record = {"settings": settings, "notes": notes, **found.facts, **listed, "cases": cases}
        Manifest(out).claim(RECORD, "dataset.json")
        write_json(out / RECORD, record)
        write_json(out / "dataset.json", _description(found, cases, out))
    return open_dataset(out)


def _check_classes(found: Found, source: Path) -> None:
    """Refuse a source without labels, and classes that have a name or a value in common."""
    if found.classes is None and not any(case.labels for case in found.cases):
        raise _no_class(source, "no label file")
    pairs = [("background", 0), *(found.classes or {}).items(), ("ignore", found.ignore)]
    if any(len({*column}) < len(pairs) for column in zip(*pairs, strict=True)):
        listed = ", ".join(f"{name}={value}" for name, value in pairs if value is not None)
        expected, do = "each name and each value once", "correct --class, or --ignore VALUE"
        raise UserError("The classes cannot be told apart", listed, expected, do, source)


def _earlier_cases(out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `import.json` says of each case; other settings and foreign files are refused."""
    Manifest(out).require_own(RECORD)
    if not (out / RECORD).is_file() and is_index(out):
        what, do = "The output folder holds the index of another source", "choose another output folder"
        raise UserError(what, None, None, do, out)
    record = read_json(out / RECORD) if (out / RECORD).is_file() else {"settings": settings, "cases": {}}
    old = record["settings"]
    if other := [key for key in settings if (old.get(key) or None) != (settings[key] or None)]:
        before, now = (", ".join(f"{key}: {its.get(key)}" for key in other) for its in (old, settings))
        what = "The output folder was imported from another source or with other options"
        raise UserError(what, before, now, "choose another output folder, or delete this one", out)
    folders = [out / f"{kind}{suffix}" for kind in ("images", "labels") for suffix in _SUFFIX.values()]
    there = sorted(path.relative_to(out).as_posix() for folder in folders for path in folder.glob("[!.]*"))
    Manifest(out).require_own("dataset.json", *there)
    return dict(record["cases"])


def _write_case(case: CaseSource, found: Found, out: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Write a case unless it is there and up to date; return what `import.json` says of it."""
    key = {"pool": case.pool, "made_from": case.content(), "classes": found.classes}
    old = earlier.get("wrote", [])
    if key.items() <= earlier.items() and all((out / file).is_file() for file in old):
        return dict(earlier)
    image, label, facts = found.load(case)
    values, suffix = _label_values(case, label, found), _SUFFIX[case.pool]
    arrays = {} if label is None else {f"labels{suffix}/{case.name}.nii.gz": label}
    for index, channel in enumerate(image.array):
        arrays[f"images{suffix}/{case.name}_{index:04d}.nii.gz"] = channel
    _remove(out, old)
    Manifest(out).claim(RECORD, *arrays)
    for file, array in arrays.items():
        write_map(out / file, _compact(array), image.affine)
        if file.startswith("labels"):
            Manifest(out).sign(file)
    return {**facts, **key, "wrote": [*arrays], "values": values}


def _label_values(case: CaseSource, label: Array | None, found: Found) -> list[int]:
    """Return the values of the label; those that are not declared are refused."""
    if label is None:
        return []
    values: list[int] = np.unique(label).tolist()
    if found.classes is not None and (wrong := {*values} - {0, found.ignore, *found.classes.values()}):
        what = f"The label of case {case.name} holds values that are no class"
        expected = "0 and " + ", ".join(f"{value} ({name})" for name, value in found.classes.items())
        do = "declare every class with --class NAME=VALUE, voxels without annotation with --ignore"
        raise UserError(what, list_values(label[np.isin(label, [*wrong])]), expected, do, [*case.labels][-1])
    return values


def _remove(out: Path, files: Iterable[str]) -> None:
    """Delete files that an import wrote; a label that was edited since then is refused first."""
    own = [file for file in files if Manifest(out).owns(file)]
    for file in own:
        if file.startswith("labels") and Manifest(out).is_edited(file):
            what = "An imported label was edited, and its source has changed, too"
            do = "move it away, or bring the edit into the source, then import again"
            raise UserError(what, "another content", "the file as written", do, out / file)
    for file in own:
        (out / file).unlink(missing_ok=True)


def _description(found: Found, entries: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return the content of `dataset.json`."""
    held = {value for entry in entries.values() for value in entry["values"]} - {0, found.ignore}
    classes = found.classes or {
        "foreground" if len(held) == 1 else f"class_{value}": value for value in sorted(held)
    }
    if not classes:
        raise _no_class(out, "labels that are 0 everywhere")
    train = [case.name for case in found.cases if case.pool == "train"]
    order = [name for name in found.order if name in train]
    count = sum(file.startswith("images") for file in entries[train[0]]["wrote"])
    channels = found.channels or [f"channel_{index}" for index in range(count)]
    return {
        "name": found.name or out.resolve().name,
        "description": found.description,
        "channel_names": {str(index): channel for index, channel in enumerate(channels)},
        "labels": {"background": 0, **classes, **({} if found.ignore is None else {"ignore": found.ignore})},
        "numTraining": len(train),
        "file_ending": ".nii.gz",
        **({"order": order} if order else {}),
        **({"regions": dict(found.regions)} if found.regions else {}),
    }


def _no_class(path: Path, found: str) -> UserError:
    do = "check the pattern of the labels, or declare the classes: --class NAME=VALUE"
    return UserError("No label holds a class", found, "at least one class", do, path)


def _compact(values: Array) -> Array:
    """Return the values in the first integer type that holds them all exactly, else as float32."""
    low, high = float(values.min()), float(values.max())
    fitting = (dtype for dtype in _TYPES if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max)
    whole = values.astype(next(fitting, np.float32))
    return whole if np.array_equal(whole, values) else np.asarray(values, np.float32)
