"""Cases of a folder in nnU-Net raw or MSD layout, found by listing it; no image or label file is opened.

A case that `report` is told of and that survives it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from semivox.datasets.declared import Meta, read_ending
from semivox.datasets.listing import (
    FOLDERS,
    Notice,
    Pool,
    Report,
    dangling_link,
    data_files,
    is_file,
    is_link,
    list_files,
    missing_image,
    stop,
)
from semivox.errors import UserError, nearest, shortened
from semivox.io.formats import NIFTI_ENDINGS

Kind = Literal["semivox", "nnunet", "msd"]

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


def recognise(meta: Meta, root: Path, channels: Sequence[str]) -> Kind:
    """Tell nnU-Net raw (images with channel numbers) from MSD (a list, or images without such numbers)."""
    images, labels = ({stem for stem, *_ in data_files(root / name)} for name in ("imagesTr", "labelsTr"))
    numbered = any(_channel(stem, channels) for stem in images)
    if meta.get("training"):
        return "nnunet" if numbered and "channel_names" in meta else "msd"
    like_labels = "modality" in meta and bool(labels) and labels <= images
    return "msd" if images and (not numbered or like_labels) else "nnunet"


def _channel(stem: str, channels: Sequence[str]) -> tuple[str, int] | None:
    match = _NUMBERED.fullmatch(stem)
    return (match[1], int(match[2])) if match and int(match[2]) < len(channels) else None


def nnunet_cases(
    meta: Meta, root: Path, channels: Sequence[str], report: Report = stop, *, any_format: bool = False
) -> Iterator[Case]:
    """Find the cases of nnU-Net raw form: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and so on."""
    ending = read_ending(meta, root / "dataset.json", any_format=any_format)
    for pool, images, labels in FOLDERS:
        cases = dict(_channel_files(root / images, ending, channels, report))
        image = f"{images}/CASE_0000{ending or '.nii.gz'}"
        yield from _with_labels(cases, pool, root / labels if labels else None, ending, image, report)


def _with_labels(
    cases: Mapping[str, tuple[Path, ...]], pool: Pool, labels: Path | None, ending: str | None, image: str,
    report: Report,
) -> Iterator[Case]:  # fmt: skip
    """Pair the images of a folder with its labels; report labels without an image."""
    files = list_files(labels, ending, report) if labels else {}
    if orphans := sorted(files.keys() - cases.keys()):
        bare = cases.keys() - files.keys()
        hints = [f"; {stem} may belong to {near}" for stem in orphans[:3] if (near := nearest(stem, bare))]
        do = "rename or remove them (label files have no channel number)" + "".join(hints)
        found = shortened((files[stem].name for stem in orphans), 5)
        expected = f"for label CASE {image}"
        report(UserError("Label files without an image", found, expected, do, labels))
    yield from (Case(name, images, files.get(name), pool) for name, images in cases.items())


def _channel_files(
    folder: Path, ending: str | None, channels: Sequence[str], report: Report
) -> Iterator[tuple[str, tuple[Path, ...]]]:
    found: dict[str, dict[int, Path]] = {}
    for stem, path in list_files(folder, ending, report).items():
        if (part := _channel(stem, channels)) is not None:
            found.setdefault(part[0], {})[part[1]] = path
            continue
        last = f" to CASE_{len(channels) - 1:04d}" if len(channels) > 1 else ""
        expected = f"CASE_0000{last} before the ending (the channels are {', '.join(channels)})"
        what, do = "An image has no valid channel number at the end of its name", "rename it"
        report(UserError(what, path.name, expected, f"{do}, or declare the channel in dataset.json", path))
    for name, files in found.items():
        for index, channel in enumerate(channels):
            if index not in files:
                report(missing_image(name, folder / f"{name}_{index:04d}{ending or '.nii.gz'}", channel))
        if len(files) == len(channels):
            yield name, tuple(files[index] for index in range(len(channels)))


def msd_cases(meta: Meta, root: Path, channels: Sequence[str], report: Report = stop) -> Iterator[Case]:
    """Find the cases of the MSD layout: the lists `training` and `test`, else the folders; and `imagesUn`."""
    ending = read_ending(meta, root / "dataset.json")
    read = {key for keys in _LISTS.values() for key in keys}
    for key, value in meta.items():
        if key not in read and isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
            what, do = "A list of cases in dataset.json is not used", 'move them to "training" or "test"'
            report(Notice(what, f"{key}: {len(value)} entries", "training, test", do, root / "dataset.json"))
    for pool, images, labels in FOLDERS:
        entries = next((meta[key] for key in _LISTS[pool] if key in meta), None)
        if isinstance(entries, list) and (entries or pool != "train"):
            yield from _listed_cases(entries, root, channels, pool, labels, report)
        elif entries:
            report(_bad_entry(root, entries))
        else:
            cases = {name: (path,) for name, path in list_files(root / images, ending, report).items()}
            folder = root / labels if labels else None
            yield from _with_labels(cases, pool, folder, ending, f"{images}/CASE", report)


def _listed_cases(
    entries: Sequence[Any], root: Path, channels: Sequence[str], pool: Pool, labels: str, report: Report
) -> Iterator[Case]:
    there = list_files(root / labels, None, lambda _: None) if labels else {}
    spare = dict(there)  # files that no entry explains
    lost = []
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
            if is_link(file):
                report(dangling_link(file))
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
