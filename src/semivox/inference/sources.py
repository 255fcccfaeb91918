"""Which scans a file or folder holds, and which files make up each of them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semivox.data.volume import Volume, read_image
from semivox.errors import UserError

ENDINGS = (".nii.gz", ".nii")
Source = Path | Mapping[str, Sequence[Path]] | Sequence[Sequence[Path]]
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class Scan:
    """A scan to segment: its name and its files, one a channel (or a single file with all channels)."""

    name: str
    files: tuple[Path, ...]


def list_scans(source: Source, channels: int) -> list[Scan]:
    """List the scans of a file or folder, or of explicit files.

    Args:
        source: a path, see `find_scans`; or the channel files of each scan by name; or without names, in
            which case the first file gives the name.
        channels: how many the model has.

    Raises:
        UserError: nothing to segment, or two scans of the same name.
    """
    if isinstance(source, Path):
        return find_scans(source, channels)
    if isinstance(source, Mapping):
        return [Scan(name, tuple(files)) for name, files in source.items()]
    scans = [Scan(_stem(files[0]).removesuffix("_0000"), tuple(files)) for files in source]
    if twice := [name for name, count in Counter(scan.name for scan in scans).items() if count > 1]:
        raise UserError(
            "Several scans have the same name",
            found=", ".join(twice[:5]),
            expected="first files of different names",
            do="give the scans names",
        )
    return scans


def find_scans(source: Path, channels: int) -> list[Scan]:
    """List the scans of a file or folder, sorted by name.

    `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, ... are the channels of CASE. Numbered files without a number 0000
    are scans of their own. A single file stands for all channels of its case when the model has several.

    Raises:
        UserError: no such file, no scans in the folder, or two files of the same name.
    """
    if source.is_dir():
        return _group(_nifti_files(source), source)
    if not source.is_file() or not source.name.endswith(ENDINGS):
        raise UserError(
            "There is no scan here",
            path=source,
            found="another kind of file" if source.is_file() else "no such file or folder",
            expected="a NIfTI file (.nii.gz, .nii) or a folder of them",
            do="check the path",
        )
    siblings = _group(_nifti_files(source.parent), source.parent) if channels > 1 else []
    for scan in siblings:
        if source in scan.files:
            return [scan]
    return [Scan(_stem(source).removesuffix("_0000"), (source,))]


def read_scan(scan: Scan, *, trust_image_geometry: bool = False) -> Volume:
    """Read all channels of a scan; on request with the first one's affine, whatever the others say.

    Raises:
        UserError: a channel file that is missing or cannot be read.
    """
    names = [_stem(file) for file in scan.files]
    expected = [f"{scan.name}_{index:04}" for index in range(len(names))]
    if len(names) > 1 and names[0] == expected[0] and names != expected:
        raise UserError(
            "A channel of the scan is missing",
            path=scan.files[0].parent,
            found=", ".join(names),
            expected=", ".join(expected),
            do="add the missing file",
        )
    return read_image(scan.files, trust_image_geometry=trust_image_geometry)


def _group(files: Iterable[Path], folder: Path) -> list[Scan]:
    groups: dict[str, list[Path]] = defaultdict(list)
    files = sorted(files)
    first_channels = {_stem(file).removesuffix("_0000") for file in files if _stem(file).endswith("_0000")}
    for file in files:
        match = _CHANNEL.fullmatch(_stem(file))
        in_group = match is not None and match["case"] in first_channels
        groups[match["case"] if match and in_group else _stem(file)].append(file)
    for name, members in groups.items():
        stems = [_stem(file) for file in members]
        if len(set(stems)) < len(stems) or (name in stems and len(stems) > 1):
            raise UserError(
                "Several files have the name of one scan",
                path=folder,
                found=", ".join(file.name for file in members),
                expected=f"{name}.nii.gz, or {name}_0000.nii.gz and so on",
                do="remove or rename those that do not belong there",
            )
    if not groups:
        inner = sorted(item.name for item in folder.iterdir() if item.is_dir() and _nifti_files(item))
        raise UserError(
            "There are no scans in this folder",
            path=folder,
            found="no .nii.gz or .nii file" + (f"; but some in {', '.join(inner[:5])}" if inner else ""),
            expected="CASE.nii.gz, or CASE_0000.nii.gz for each channel",
            do=f"name the folder {folder / inner[0]}" if inner else "check the path",
        )
    return [Scan(name, tuple(members)) for name, members in sorted(groups.items())]


def _nifti_files(folder: Path) -> list[Path]:
    """NIfTI files, without hidden ones such as the `._CASE.nii.gz` that some systems add to archives."""
    return [
        item
        for item in folder.iterdir()
        if item.name.endswith(ENDINGS) and not item.name.startswith(".") and item.is_file()
    ]


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".nii")
