"""Data set folders of other tools: nnU-Net raw and MSD, found by the keys of their dataset.json.

Nothing here opens an image or a label file; folders are listed, `dataset.json` is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from semivox.datasets.declared import Meta, read_ending
from semivox.errors import UserError

Pool = Literal["train", "test", "extra"]
Report = Callable[[UserError], None]

FOLDERS: tuple[tuple[Pool, str, str], ...] = (
    ("train", "imagesTr", "labelsTr"),
    ("test", "imagesTs", "labelsTs"),
    ("extra", "imagesUn", ""),
)


@dataclass(frozen=True)
class Case:
    """One scan.

    Attributes:
        name: unique in its data set.
        images: one file a channel, or one file with all channels.
        label: None where there is no label file.
        pool: where it was found; a train case without label file is unlabeled, and so is every extra case.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    pool: Pool


def stop(error: UserError) -> None:
    """Take a problem as the end: the usual way to report one."""
    raise error


def nnunet_cases(
    meta: Meta, root: Path, channels: Sequence[str], report: Report = stop, *, any_format: bool = False
) -> Iterator[Case]:
    """Find the cases of nnU-Net raw form: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and so on.

    What `report` is told of and survives is left out.
    """
    ending = read_ending(meta, root / "dataset.json", any_format=any_format)
    for pool, images, labels in FOLDERS:
        cases = list(_channel_files(root / images, ending, channels, report))
        label_files = _files(root / labels, ending) if labels else {}
        if orphans := sorted(label_files.keys() - {name for name, _ in cases}):
            report(
                UserError(
                    "Label files without an image",
                    path=root / labels,
                    found=some([name + ending for name in orphans]),
                    expected=f"for every label CASE{ending} an image {images}/CASE_0000{ending}",
                    do="rename or remove them (label files have no channel number)",
                )
            )
        yield from (Case(name, files, label_files.get(name), pool) for name, files in cases)


def msd_cases(meta: Meta, root: Path, channels: Sequence[str], report: Report = stop) -> Iterator[Case]:
    """Find the cases of the MSD layout: the lists `training` and `test`, else the folders; and `imagesUn`.

    What `report` is told of and survives is left out.
    """
    ending = read_ending(meta, root / "dataset.json")
    keys: dict[Pool, tuple[str, ...]] = {"train": ("training",), "test": ("test", "testing"), "extra": ()}
    for pool, images, labels in FOLDERS:
        entries = next((meta[key] for key in keys[pool] if key in meta), None)
        if entries is None:
            entries = [
                {"image": f"{images}/{name}{ending}", "label": f"{labels or images}/{name}{ending}"}
                for name in _files(root / images, ending)
            ]
        if not isinstance(entries, list):
            report(_bad_entry(root, entries))
            continue
        for entry in entries:
            try:
                case = _msd_case(entry, root, channels, pool, labels)
            except UserError as error:
                report(error)
                continue
            yield case


def _msd_case(entry: Any, root: Path, channels: Sequence[str], pool: Pool, labels: str) -> Case:
    parts = entry if isinstance(entry, Mapping) else {"image": entry}
    image, label = parts.get("image"), parts.get("label")
    listed = image if isinstance(image, list) else [image]
    if not listed or not all(isinstance(item, str) and item.endswith((".nii", ".nii.gz")) for item in listed):
        raise _bad_entry(root, entry)
    if label is not None and not isinstance(label, str):
        raise _bad_entry(root, entry)
    files = tuple(root / str(item) for item in listed)
    ending = ".nii.gz" if files[0].name.endswith(".nii.gz") else ".nii"
    name = files[0].name.removesuffix(ending)
    if len(files) > 1:
        name = name.removesuffix("_0000")
    elif not is_file(files[0]) and is_file(files[0].with_name(f"{name}_0000{ending}")):
        files = tuple(files[0].with_name(f"{name}_{index:04d}{ending}") for index in range(len(channels)))
    if label is None and pool == "test":
        label = f"{labels}/{name}{ending}"
    label_file = root / label if label is not None and pool != "extra" else None
    return Case(name, files, label_file if label_file is not None and is_file(label_file) else None, pool)


def _channel_files(
    folder: Path, ending: str, channels: Sequence[str], report: Report
) -> Iterator[tuple[str, tuple[Path, ...]]]:
    found: dict[str, dict[int, Path]] = {}
    for stem, path in _files(folder, ending).items():
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if match is None or int(match[2]) >= len(channels):
            report(_bad_number(path, ending, channels))
            continue
        found.setdefault(match[1], {})[int(match[2])] = path
    for name, files in found.items():
        for index, channel in enumerate(channels):
            if index not in files:
                report(missing_image(name, folder / f"{name}_{index:04d}{ending}", channel))
        if len(files) == len(channels):
            yield name, tuple(files[index] for index in range(len(channels)))


def missing_image(case: str, path: Path, channel: str | None) -> UserError:
    """Make the message for an image file that is declared or implied but not there."""
    return UserError(
        f"Case {case}: the image" + (f" of channel {channel}" if channel else "") + " is missing",
        path=path,
        found="no such file",
        expected="one image file for each channel of each case",
        do="add the file, or remove the case from the data set",
    )


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """List files by name without ending, sorted; hidden files (among them macOS's `._NAME`) are left out."""
    if not folder.is_dir():
        return {}
    names = sorted(path.name for path in folder.iterdir())
    return {
        name.removesuffix(ending): folder / name
        for name in names
        if name.endswith(ending) and not name.startswith(".")
    }


def is_file(path: Path) -> bool:
    """Whether there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def some(names: Sequence[str], limit: int = 5) -> str:
    """Join the first names, and tell how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _bad_number(path: Path, ending: str, channels: Sequence[str]) -> UserError:
    return UserError(
        "An image has no valid channel number at the end of its name",
        path=path,
        found=path.name,
        expected=f"CASE_0000{ending}"
        + (f" to CASE_{len(channels) - 1:04d}{ending}" if len(channels) > 1 else "")
        + f" (the channels are {', '.join(channels)})",
        do="rename the file, or declare the channel in dataset.json",
    )


def _bad_entry(root: Path, entry: object) -> UserError:
    return UserError(
        "An entry of a case list is malformed",
        path=root / "dataset.json",
        found=repr(entry)[:200],
        expected='{"image": "./imagesTr/CASE.nii.gz", "label": "./labelsTr/CASE.nii.gz"}',
        do="correct dataset.json",
    )
