"""Cases of any source become NIfTI files and a `dataset.json` in nnU-Net raw form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from semivox.datasets.dataset import Dataset, is_index, open_dataset
from semivox.datasets.importers.source import CaseSource, Found, Loaded
from semivox.datasets.listing import FOLDERS, name_errors
from semivox.errors import UserError, shortened
from semivox.files import locked, read_json, signature, write_json
from semivox.io.formats import Array, list_values
from semivox.io.volume import write_map
from semivox.manifest import Manifest
from semivox.progress import Progress

RECORD = "import.json"
_IMAGE_TYPES = (np.uint8, np.int16, np.uint16)
_LABEL_TYPES = (np.uint8, np.int16, np.int32)
_FOLDERS = {pool: (images, labels or "labelsUn") for pool, images, labels in FOLDERS}


def convert(
    found: Found,
    source: Path,
    out: Path,
    settings: Mapping[str, Any],
    name: str | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Write `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and so on, and `dataset.json` at the end.

    Cases of an earlier call whose source files are unchanged are kept, so an interrupted import resumes;
    changed ones are written anew, and files of cases that the source no longer has are removed. Values are
    stored as integers where all of them are, else as float32.

    `settings` are everything that the result depends on, kept in `import.json`; without a `name` the data
    set has that of `out`.
    """
    _check_found(found, source)
    with locked(out):
        writer = _Writer(found, out, settings)
        for done, case in enumerate(found.cases, start=1):
            writer.write(case)
            if progress is not None:
                progress(done, len(found.cases), case.name)
        writer.finish(name or out.resolve().name)
    return open_dataset(out)


def _check_found(found: Found, source: Path) -> None:
    """Refuse names that are taken or no file names, and a source without training cases or labels."""
    names = [case.name for case in found.cases]
    for error in name_errors(names, source):
        raise error
    if not any(case.pool == "train" for case in found.cases):
        there, do = shortened(sorted(names), 5) or "no case at all", "check the source and the lists"
        raise UserError("There is no training case", there, None, do, source)
    if found.classes is None and not any(case.labels for case in found.cases):
        raise _no_class(source, "no label file")
    pairs = [("background", 0), *(found.classes or {}).items(), ("ignore", found.ignore)]
    if any(len({*column}) < len(pairs) for column in zip(*pairs, strict=True)):
        listed = ", ".join(f"{name}={value}" for name, value in pairs if value is not None)
        expected, do = "each name and each value once", "correct --class, or --ignore VALUE"
        raise UserError("The classes cannot be told apart", listed, expected, do, source)


def _no_class(path: Path, found: str) -> UserError:
    do = "check the pattern of the labels, or declare the classes: --class NAME=VALUE"
    return UserError("No label holds a class", found, "at least one class", do, path)


class _Writer:
    """The output folder: what an earlier import wrote there, and what this one adds and removes."""

    def __init__(self, found: Found, out: Path, settings: Mapping[str, Any]) -> None:
        self.found, self.out, self.manifest = found, out, Manifest(out)
        self.manifest.require_own(RECORD)
        record: dict[str, Any] = {"settings": settings}
        if (out / RECORD).is_file():
            record = read_json(out / RECORD)
        elif is_index(out):
            what, do = "The output folder holds the index of another source", "choose another output folder"
            raise UserError(what, None, None, do, out)
        old = record["settings"]
        if other := [key for key in settings if old.get(key) != settings[key]]:
            before, now = (", ".join(f"{key}: {its.get(key)}" for key in other) for its in (old, settings))
            what = "The output folder was imported from another source or with other options"
            raise UserError(what, before, now, "choose another output folder, or delete this one", out)
        there = (file for names in _FOLDERS.values() for name in names for file in (out / name).glob("[!.]*"))
        self.manifest.require_own("dataset.json", *sorted(file.relative_to(out).as_posix() for file in there))
        self.record: dict[str, Any] = {"settings": settings, "notes": list(found.notes), **found.facts}
        self.cases: dict[str, Any] = record.get("cases", {})
        self.changed: list[str] = []

    def write(self, case: CaseSource) -> None:
        """Write a case, unless its files are there and made from the same source files."""
        classes = None if self.found.classes is None else dict(self.found.classes)
        key = {"pool": case.pool, "made_from": _content(case.files), "classes": classes}
        entry = self.cases.get(case.name, {})
        is_current = entry and all(entry.get(name) == value for name, value in key.items())
        if is_current and all((self.out / file).is_file() for file in entry["wrote"]):
            return
        loaded = self.found.load(case)
        values = _label_values(case, loaded, self.found)
        if entry:
            self._remove(entry["wrote"])
            self.changed.append(case.name)
        wrote = self._save(case, loaded)
        self.cases[case.name] = {**loaded.facts, **key, "wrote": wrote, "values": values}
        write_json(self.out / RECORD, {**self.record, "cases": self.cases})

    def _save(self, case: CaseSource, loaded: Loaded) -> list[str]:
        images, labels = _FOLDERS[case.pool]
        names = [f"{images}/{case.name}_{index:04d}.nii.gz" for index in range(len(loaded.image.array))]
        label = [] if loaded.label is None else [f"{labels}/{case.name}.nii.gz"]
        self.manifest.claim(RECORD, *label, *names)
        if loaded.label is not None:
            write_map(self.out / label[0], _compact(loaded.label, _LABEL_TYPES), loaded.image.affine)
            self.manifest.sign(label[0])
        for file, channel in zip(names, loaded.image.array, strict=True):
            write_map(self.out / file, _compact(channel, _IMAGE_TYPES), loaded.image.affine)
        return [*label, *names]

    def _remove(self, files: Iterable[str]) -> None:
        """Delete files that an import wrote; a label that was edited since then is refused first."""
        own = [file for file in files if self.manifest.owns(file)]
        for file in own:
            if file.startswith("labels") and self.manifest.is_edited(file):
                what = "An imported label was edited, and its source has changed, too"
                do = "move it away, or bring the edit into the source, then import again"
                raise UserError(what, "another content", "the file as written", do, self.out / file)
        for file in own:
            (self.out / file).unlink(missing_ok=True)

    def finish(self, name: str) -> None:
        """Remove what the source no longer has, and describe the data set."""
        meta = self._meta(name)
        gone = sorted(self.cases.keys() - {case.name for case in self.found.cases})
        for case_name in gone:
            del self.cases[case_name]
        wrote = {file for entry in self.cases.values() for file in entry["wrote"]}
        self._remove(file for file in self.manifest.files() if "/" in file and file not in wrote)
        for names, text in (
            (self.changed, "written anew, because their source files have changed"),
            (gone, "removed, because the source no longer has them"),
        ):
            self.record["notes"] += [f"{text}: {shortened(names, 10)}"] if names else []
        self.manifest.claim("dataset.json", RECORD)
        write_json(self.out / RECORD, {**self.record, "cases": self.cases})
        write_json(self.out / "dataset.json", meta)

    def _meta(self, name: str) -> dict[str, Any]:
        """Return the content of `dataset.json`."""
        found, entries = self.found, [self.cases[case.name] for case in self.found.cases]
        classes = found.classes
        if classes is None:
            values = sorted({value for entry in entries for value in entry["values"]} - {0, found.ignore})
            classes = {"foreground" if len(values) == 1 else f"class_{value}": value for value in values}
        if not classes:
            raise _no_class(self.out, "labels that are 0 everywhere")
        train = [case.name for case in found.cases if case.pool == "train"]
        count = sum(file.startswith("images") for file in entries[0]["wrote"])
        channels = found.channels or [f"channel_{index}" for index in range(count)]
        order = [name for name in found.order if name in train]
        return {
            "name": name,
            "description": found.description,
            "channel_names": {str(index): channel for index, channel in enumerate(channels)},
            "labels": {
                "background": 0, **classes, **({} if found.ignore is None else {"ignore": found.ignore}),
            },
            "numTraining": len(train),
            "file_ending": ".nii.gz",
            **({"order": order} if order else {}),
            **({"regions": dict(found.regions)} if found.regions else {}),
        }  # fmt: skip


def _content(files: Sequence[Path]) -> str:
    """Return a digest of the content of source files and folders."""
    digest = blake2b(digest_size=16)
    for file in files:
        for path in sorted(file.rglob("*")) if file.is_dir() else [file]:
            if not path.is_dir():
                digest.update(signature(path)[-1].encode())
    return digest.hexdigest()


def _compact(values: Array, types: Sequence[type[np.integer[Any]]]) -> Array:
    """Return the values in the first integer type that holds them all exactly, else as float32."""
    low, high = float(values.min()), float(values.max())
    limits = [(dtype, np.iinfo(dtype)) for dtype in types]
    fitting = [dtype for dtype, limit in limits if limit.min <= low and high <= limit.max]
    if fitting and np.array_equal(whole := values.astype(fitting[0]), values):
        return whole
    return np.asarray(values, np.float32)


def _label_values(case: CaseSource, loaded: Loaded, found: Found) -> list[int]:
    """Return the values of the label; those that are not declared are refused."""
    if loaded.label is None:
        return []
    values = np.unique(loaded.label)
    known = [0, found.ignore, *(found.classes or {}).values()]
    if found.classes is not None and (unknown := set(values.tolist()) - {*known}):
        what = f"The label of case {case.name} holds values that are no class"
        expected = "0 and " + ", ".join(f"{value} ({key})" for key, value in found.classes.items())
        do = "declare every class with --class NAME=VALUE, voxels without annotation with --ignore"
        listed = list_values(loaded.label[np.isin(loaded.label, [*unknown])])
        raise UserError(what, listed, expected, do, case.files[-1])
    return [int(value) for value in values]
