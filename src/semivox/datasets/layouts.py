"""Cases of a folder in nnU-Net raw or MSD layout, found by listing it; no image or label file is opened.

A case that `report` is told of and that survives it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from semivox.datasets.declared import Meta
from semivox.datasets.listing import (
    FOLDERS,
    Notice,
    Pool,
    Report,
    data_files,
    is_file,
    list_files,
    missing_image,
)
from semivox.errors import UserError, shortened
from semivox.io.formats import NIFTI_ENDINGS

_LISTS: dict[Pool, tuple[str, ...]] = {"train": ("training",), "test": ("test", "testing"), "extra": ()}
_NUMBERED = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Case:
    """One scan."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str  # unique in its data set
    images: tuple[Path, ...]  # one file a channel, or one file with all channels
    label: Path | None  # None where there is no label file
    pool: Pool  # a train case without label file is unlabeled, and so is every extra case


def find_cases(
    meta: Meta, root: Path, channels: Sequence[str], ending: str | None, report: Report
) -> Iterator[Case]:
    """Find the cases of every pool; what is on disk tells the layout.

    nnU-Net raw has channel numbers, `imagesTr/CASE_0000.nii.gz`; MSD has the lists `training` and `test`, or
    images without such numbers. A folder `imagesUn` holds extra scans in both.
    """
    numbered = _has_numbers(meta, root, channels)
    read = {key for keys in _LISTS.values() for key in keys}
    for key, value in () if numbered else meta.items():
        if key not in read and isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            what, do = "A list of cases in dataset.json is not used", 'move them to "training" or "test"'
            report(Notice(what, f"{key}: {len(value)} entries", "training, test", do, root / "dataset.json"))
    cases: Mapping[str, tuple[Path, ...]]
    for pool, images, labels in FOLDERS:
        entries = None if numbered else next((meta[key] for key in _LISTS[pool] if key in meta), None)
        if isinstance(entries, list) and (entries or pool != "train"):
            yield from _listed_cases(entries, root, channels, pool, labels, report)
        elif entries:
            report(_bad_entry(root, entries))
        else:
            files = list_files(root / images, ending, report)
            if numbered:
                cases = dict(_by_channel(files, root / images, channels, report))
            else:
                cases = {name: (path,) for name, path in files.items()}
            yield from _with_labels(cases, pool, root / labels if labels else None, ending, report)


def _has_numbers(meta: Meta, root: Path, channels: Sequence[str]) -> bool:
    """Whether images are named by channel; a list counts unless `channel_names` says that it is nnU-Net's."""
    images, labels = ({stem for stem, *_ in data_files(root / name)} for name in ("imagesTr", "labelsTr"))
    numbered = any(_channel(stem, channels) for stem in images)
    if meta.get("training"):
        return numbered and "channel_names" in meta
    like_labels = "modality" in meta and bool(labels) and labels <= images
    return not images or (numbered and not like_labels)


def _channel(stem: str, channels: Sequence[str]) -> tuple[str, int] | None:
    match = _NUMBERED.fullmatch(stem)
    return (match[1], int(match[2])) if match and int(match[2]) < len(channels) else None


def _by_channel(
    files: Mapping[str, Path], folder: Path, channels: Sequence[str], report: Report
) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Group files by case; report names without a channel number, and channels that are missing."""
    found: dict[str, dict[int, Path]] = {}
    for stem, path in files.items():
        if (part := _channel(stem, channels)) is not None:
            found.setdefault(part[0], {})[part[1]] = path
            continue
        what, do = "An image has no valid channel number at the end of its name", "rename it"
        expected = f"CASE_0000 before the ending, up to the last of the channels {', '.join(channels)}"
        report(UserError(what, path.name, expected, f"{do}, or declare the channel in dataset.json", path))
    for name, its in found.items():
        for index in sorted({*range(len(channels))} - its.keys()):
            report(missing_image(name, folder / f"{name}_{index:04d}.nii.gz", channels[index]))
        if len(its) == len(channels):
            yield name, tuple(its[index] for index in range(len(channels)))


def _with_labels(
    cases: Mapping[str, tuple[Path, ...]], pool: Pool, labels: Path | None, ending: str | None, report: Report
) -> Iterator[Case]:
    """Pair the images of a folder with its labels; report labels without an image."""
    files = list_files(labels, ending, report) if labels else {}
    if orphans := sorted(files.keys() - cases.keys()):
        found = shortened((files[stem].name for stem in orphans), 5)
        do = "rename or remove them (label files have no channel number)"
        report(UserError("Label files without an image", found, "the name of a case", do, labels))
    yield from (Case(name, images, files.get(name), pool) for name, images in cases.items())


def _listed_cases(
    entries: Sequence[Any], root: Path, channels: Sequence[str], pool: Pool, labels: str, report: Report
) -> Iterator[Case]:
    there, lost = list_files(root / labels, None, report) if labels else {}, []
    spare = dict(there)  # files that no entry explains
    for entry in entries:
        parts = entry if isinstance(entry, Mapping) else {"image": entry}
        image, label = parts.get("image"), parts.get("label")
        listed: list[Any] = image if isinstance(image, list) else [image]
        if not listed or not all(map(_is_nifti, listed)) or not isinstance(label, str | None):
            report(_bad_entry(root, entry))
            continue
        name, images = _listed_images([root / item for item in listed], len(channels))
        file = root / label if label else there.get(name) if pool == "test" else None
        if file is not None and not is_file(file):
            lost.append(str(label))
            file = None
        spare = {stem: path for stem, path in spare.items() if path != file and (label or stem != name)}
        yield Case(name, images, file, pool)
    if lost:
        others = shortened((path.name for path in spare.values()), 5)
        found = shortened(lost, 5) + (f"; but files not listed: {others}" if others else "")
        what, expected = "Label files that dataset.json lists do not exist", "a file at each of these paths"
        do = "correct the paths in dataset.json" + ("" if spare else "; these cases count as unlabeled")
        report((UserError if spare else Notice)(what, found, expected, do, root / labels))


def _listed_images(files: list[Path], count: int) -> tuple[str, tuple[Path, ...]]:
    """Return the case's name and its images; a file that is there by channel alone becomes one a channel."""
    path = files[0]
    ending = next(end for end in NIFTI_ENDINGS if path.name.lower().endswith(end))
    name, ending = path.name[: -len(ending)], path.name[-len(ending) :]
    if len(files) > 1:
        return name.removesuffix("_0000"), tuple(files)
    if not is_file(path) and is_file(path.with_name(f"{name}_0000{ending}")):
        files = [path.with_name(f"{name}_{index:04d}{ending}") for index in range(count)]
    return name, tuple(files)


def _is_nifti(item: object) -> bool:
    return isinstance(item, str) and item.lower().endswith(NIFTI_ENDINGS)


def _bad_entry(root: Path, entry: object) -> UserError:
    expected = '{"image": "./imagesTr/CASE.nii.gz", "label": "./labelsTr/CASE.nii.gz"}'
    found, do = repr(entry)[:200], "correct dataset.json"
    return UserError("An entry of a case list is malformed", found, expected, do, root / "dataset.json")
