"""Folders in nnU-Net raw or MSD layout, listed: their cases, and files that no case uses.

No image or label file is opened. Every file in the folders of images and labels is used, or named in an error
or a notice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from os.path import normpath
from pathlib import Path
from typing import Any

from semivox.datasets.case import Case, Notice, Pool
from semivox.datasets.declared import Meta
from semivox.errors import UserError, shortened
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS, stem

_FOLDERS: dict[Pool, tuple[str, str]] = {
    "train": ("imagesTr", "labelsTr"),
    "test": ("imagesTs", "labelsTs"),
    "extra": ("imagesUn", ""),
}
_LISTS: dict[Pool, tuple[str, ...]] = {"train": ("training",), "test": ("test", "testing"), "extra": ()}
_NUMBERED = re.compile(r"(.+)_(\d{4})")
_SIMILAR = 0.85


def scan_files(folder: Path) -> list[Path]:
    """List the scans of a folder by their endings, sorted, without hidden files (macOS's `._NAME`)."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    endings = (*NIFTI_ENDINGS, *ITK_ENDINGS)
    return [folder / name for name in names if name.lower().endswith(endings) and not name.startswith(".")]


@dataclass(frozen=True)
class Finder:
    """Finds the cases of every pool; what is on disk tells the layout.

    nnU-Net raw has channel numbers, `imagesTr/CASE_0000.nii.gz`; MSD has the lists `training` and `test`, or
    images without such numbers. A folder `imagesUn` holds extra scans in both.
    """

    meta: Meta
    root: Path
    channels: Sequence[str]
    ending: str | None  # that all files must have; None: any of NIfTI
    problems: list[UserError] = field(default_factory=list)  # found on the way; its cases are left out

    def cases(self) -> Iterator[Case]:
        """Find all cases, pool after pool."""
        numbered = self._has_numbers()
        for pool in _FOLDERS:
            entries = next((self.meta[key] for key in _LISTS[pool] if key in self.meta), None)
            if numbered or not (entries or (entries == [] and pool != "train")):
                yield from self._in_folder(pool, numbered)
            else:
                yield from self._in_list(pool, entries)
        read = [key for keys in _LISTS.values() for key in keys]
        for key, value in () if numbered else self.meta.items():
            is_list = isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value)
            if is_list and key not in read:
                what, do = "A list of cases in dataset.json is not used", 'move them to "training" or "test"'
                self.problems.append(Notice(what, f"{key}: {len(value)} entries", None, do, self.root))

    def _has_numbers(self) -> bool:
        """Whether images are named by channel; a list counts, unless `channel_names` says it is nnU-Net's."""
        images, labels = (set(map(stem, scan_files(self.root / name))) for name in _FOLDERS["train"])
        numbered = any(map(self._channel, images))
        if self.meta.get("training"):
            return numbered and "channel_names" in self.meta
        like_labels = "modality" in self.meta and bool(labels) and labels <= images
        return not images or (numbered and not like_labels)

    def _channel(self, name: str) -> tuple[str, int] | None:
        """Split `CASE_0001` into case and channel; None if there is no such channel."""
        match = _NUMBERED.fullmatch(name)
        return (match[1], int(match[2])) if match and int(match[2]) < len(self.channels) else None

    def _in_folder(self, pool: Pool, numbered: bool) -> Iterator[Case]:
        """Group the images by case and pair them with labels; what does not fit is a problem."""
        (folder, label_folder), channels = _FOLDERS[pool], self.channels if numbered else [""]
        cases: dict[str, dict[int, Path]] = defaultdict(dict)
        for name, path in self._files(folder, self.ending).items():
            if (part := self._channel(name) if numbered else (name, 0)) is not None:
                cases[part[0]][part[1]] = path
                continue
            what = "An image has no valid channel number at the end of its name"
            do = "rename it, or declare the channel in dataset.json"
            expected = ", ".join(f"CASE_{index:04d} ({name})" for index, name in enumerate(channels))
            self.problems.append(UserError(what, path.name, expected, do, path))
        labels = self._files(label_folder, self.ending)
        for name, its in cases.items():
            ending = self.ending or ".nii.gz"  # of channels that are missing, and told of later
            named = (self.root / folder / f"{name}_{index:04d}{ending}" for index in range(len(channels)))
            images = tuple(its.get(index, path) for index, path in enumerate(named))
            yield Case(name, images, labels.get(name), pool)
        if orphans := sorted(labels.keys() - cases.keys()):
            found = shortened((labels[name].name for name in orphans), 5)
            what, do = "Label files without an image", "rename or remove them; they have no channel number"
            where = self.root / label_folder
            self.problems.append(UserError(what, found, "the name of a case", do, where))

    def _in_list(self, pool: Pool, entries: Any) -> Iterator[Case]:
        """Take the cases that `dataset.json` lists."""
        if not isinstance(entries, list):
            self._malformed(entries)
            return
        folder = _FOLDERS[pool][1]
        there, explained, lost = self._files(folder, None), set[Path | None](), list[str]()
        for entry in entries:
            parts = entry if isinstance(entry, Mapping) else {"image": entry}
            image, label = parts.get("image"), parts.get("label")
            listed: list[Any] = image if isinstance(image, list) else [image]
            if not listed or not all(map(_is_nifti, listed)) or not isinstance(label, str | None):
                self._malformed(entry)
                continue
            name, images = self._listed_images([self.root / item for item in listed])
            file = self.root / label if label else there.get(name)
            explained.add(file)
            is_there = file is not None and file.is_file()
            if label and not is_there:
                lost.append(label)
            yield Case(name, images, file if is_there and (label or pool == "test") else None, pool)
        if lost:
            spare = [path.name for path in there.values() if path not in explained]
            others = f"; but files not listed: {shortened(spare, 5)}" if spare else ""
            what = "Label files that dataset.json lists do not exist"
            do = "correct the paths in dataset.json" + ("" if spare else "; these cases count as unlabeled")
            kind = UserError if spare else Notice
            self.problems.append(kind(what, shortened(lost, 5) + others, None, do, self.root / folder))

    def _malformed(self, entry: object) -> None:
        what, path = "An entry of a case list is malformed", self.root / "dataset.json"
        expected = '{"image": "imagesTr/CASE.nii.gz", "label": ...}'
        self.problems.append(UserError(what, repr(entry)[:200], expected, "correct dataset.json", path))

    def _listed_images(self, files: list[Path]) -> tuple[str, tuple[Path, ...]]:
        """Return the case's name and its images; one that is there by channel alone, all of these."""
        path, name = files[0], stem(files[0])
        if len(files) > 1:
            return name.removesuffix("_0000"), tuple(files)
        ending = path.name.removeprefix(name)
        numbered = [path.with_name(f"{name}_{index:04d}{ending}") for index in range(len(self.channels))]
        return name, tuple(files if path.is_file() or not numbered[0].is_file() else numbered)

    def _files(self, folder: str, ending: str | None) -> dict[str, Path]:
        """Return scans by name without ending; another than the declared `ending` is a problem.

        Where none is declared, any NIfTI ending will do, in capitals too.
        """
        found: dict[str, Path] = {}
        for path in scan_files(self.root / folder) if folder else ():
            name, shown, expected = stem(path), path.name, ending or "a NIfTI ending"
            if not (shown.endswith(ending) if ending else shown.lower().endswith(NIFTI_ENDINGS)):
                what = "A file has another ending than declared"
                do = "rename or convert it; without file_ending in dataset.json, .nii and .nii.gz both count"
            elif not path.is_file():
                what, expected = "A scan is a folder, or a link to a file that does not exist", "a file"
                do = "restore or remove it"
            elif name in found:
                what, shown = "Two files differ in the ending alone", f"{found[name].name} and {shown}"
                expected, do = "one file", "remove one of them"
            else:
                found[name] = path
                continue
            self.problems.append(UserError(what, shown, expected, do, path))
        return found


def unused_files(root: Path, used: Iterable[Path]) -> Iterator[UserError]:
    """Name the files beside those of the cases; a folder that is misnamed is an error."""
    known = {normpath(path) for path in used}
    standard = [name for names in _FOLDERS.values() for name in names if name]
    absent = [name for name in standard if not (root / name).is_dir()]
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else ():
        if folder.name in standard:
            unused = [path.name for path in folder.glob("[!.]*") if normpath(path) not in known]
            if unused:
                do = "remove them, or correct names or dataset.json"
                found = shortened(sorted(unused), 8)
                yield Notice("Files that the data set does not use", found, None, do, folder)
            continue
        likeness = {name: SequenceMatcher(None, folder.name, name).ratio() for name in absent}
        near = max(likeness, key=likeness.__getitem__, default="")  # of equal ones the first: training
        files = scan_files(folder) if likeness.get(near, 0) >= _SIMILAR else []
        if files and not any(normpath(path) in known for path in files):
            what, found = "A folder of scans is not used", f"{folder.name}, which holds {files[0].name}"
            yield UserError(what, found, near, f"rename it to {near}, or move it away", folder)


def _is_nifti(item: object) -> bool:
    return isinstance(item, str) and item.lower().endswith(NIFTI_ENDINGS)
