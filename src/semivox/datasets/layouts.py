"""Cases of a folder in nnU-Net raw or MSD layout, found by listing it; no image or label file is opened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from semivox.datasets.declared import Meta
from semivox.datasets.listing import FOLDERS, Notice, Pool, data_files, list_files, missing_image
from semivox.errors import UserError, shortened
from semivox.io.formats import NIFTI_ENDINGS, stem

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
    problems: list[UserError]  # takes what is wrong with single cases, which are then left out

    def cases(self) -> Iterator[Case]:
        """Return all cases, pool after pool."""
        numbered = self._has_numbers()
        for pool, images, labels in FOLDERS:
            entries = next((self.meta[key] for key in _LISTS[pool] if key in self.meta), None)
            if numbered or not (entries or (entries == [] and pool != "train")):
                files = list_files(self.root / images, self.ending, self.problems)
                whole = ((name, (path,)) for name, path in files.items())
                cases = dict(self._by_channel(files, images) if numbered else whole)
                yield from self._with_labels(cases, pool, labels)
            elif isinstance(entries, list):
                yield from self._listed(entries, pool, labels)
            else:
                self._malformed(entries)
        read = {key for keys in _LISTS.values() for key in keys}
        for key, value in () if numbered else self.meta.items():
            is_list = isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value)
            if is_list and key not in read:
                what, do = "A list of cases in dataset.json is not used", 'move them to "training" or "test"'
                self.problems.append(Notice(what, f"{key}: {len(value)} entries", None, do, self.root))

    def _has_numbers(self) -> bool:
        """Whether images are named by channel; a list counts, unless `channel_names` says it is nnU-Net's."""
        images, labels = (
            {name for name, *_ in data_files(self.root / f"{kind}Tr")} for kind in ("images", "labels")
        )
        numbered = any(map(self._channel, images))
        if self.meta.get("training"):
            return numbered and "channel_names" in self.meta
        like_labels = "modality" in self.meta and bool(labels) and labels <= images
        return not images or (numbered and not like_labels)

    def _channel(self, name: str) -> tuple[str, int] | None:
        match = _NUMBERED.fullmatch(name)
        return (match[1], int(match[2])) if match and int(match[2]) < len(self.channels) else None

    def _by_channel(self, files: Mapping[str, Path], folder: str) -> Iterator[tuple[str, tuple[Path, ...]]]:
        """Group files by case; names without a channel number and missing channels are problems."""
        found: dict[str, dict[int, Path]] = {}
        for name, path in files.items():
            if (part := self._channel(name)) is not None:
                found.setdefault(part[0], {})[part[1]] = path
                continue
            what = "An image has no valid channel number at the end of its name"
            do = "rename it, or declare the channel in dataset.json"
            expected = ", ".join(f"CASE_{index:04d} ({name})" for index, name in enumerate(self.channels))
            self.problems.append(UserError(what, path.name, expected, do, path))
        for name, its in found.items():
            for index, channel in enumerate(self.channels):
                if index not in its:
                    path = self.root / folder / f"{name}_{index:04d}.nii.gz"
                    self.problems.append(missing_image(name, path, channel))
            if len(its) == len(self.channels):
                yield name, tuple(its[index] for index in sorted(its))

    def _with_labels(self, cases: Mapping[str, tuple[Path, ...]], pool: Pool, folder: str) -> Iterator[Case]:
        """Pair the images of a folder with its labels; labels without an image are a problem."""
        files = list_files(self.root / folder, self.ending, self.problems) if folder else {}
        if orphans := sorted(files.keys() - cases.keys()):
            found = shortened((files[name].name for name in orphans), 5)
            what, do = "Label files without an image", "rename or remove them; they have no channel number"
            self.problems.append(UserError(what, found, "the name of a case", do, self.root / folder))
        yield from (Case(name, images, files.get(name), pool) for name, images in cases.items())

    def _listed(self, entries: Sequence[Any], pool: Pool, folder: str) -> Iterator[Case]:
        there = list_files(self.root / folder, None, self.problems) if folder else {}
        spare, lost = dict(there), list[str]()  # files that no entry explains, and entries without a file
        for entry in entries:
            parts = entry if isinstance(entry, Mapping) else {"image": entry}
            image, label = parts.get("image"), parts.get("label")
            listed: list[Any] = image if isinstance(image, list) else [image]
            if not listed or not all(map(_is_nifti, listed)) or not isinstance(label, str | None):
                self._malformed(entry)
                continue
            name, images = self._listed_images([self.root / item for item in listed])
            file = self.root / label if label else there.get(name) if pool == "test" else None
            if file is not None and not file.is_file():
                lost.append(str(label))
                file = None
            spare = {key: path for key, path in spare.items() if path != file and (label or key != name)}
            yield Case(name, images, file, pool)
        if lost:
            others = f"; but files not listed: {shortened((path.name for path in spare.values()), 5)}"
            found = shortened(lost, 5) + (others if spare else "")
            what = "Label files that dataset.json lists do not exist"
            do = "correct the paths in dataset.json" + ("" if spare else "; these cases count as unlabeled")
            kind = UserError if spare else Notice
            self.problems.append(kind(what, found, None, do, self.root / folder))

    def _listed_images(self, files: list[Path]) -> tuple[str, tuple[Path, ...]]:
        """Return the case's name and its images; one that is there by channel alone, all of these."""
        path, name = files[0], stem(files[0])
        if len(files) > 1:
            return name.removesuffix("_0000"), tuple(files)
        if not path.is_file():
            ending = path.name.removeprefix(name)
            numbered = [path.with_name(f"{name}_{index:04d}{ending}") for index in range(len(self.channels))]
            files = numbered if numbered[0].is_file() else files
        return name, tuple(files)

    def _malformed(self, entry: object) -> None:
        what, path = "An entry of a case list is malformed", self.root / "dataset.json"
        expected = '{"image": "imagesTr/CASE.nii.gz", "label": ...}'
        self.problems.append(UserError(what, repr(entry)[:200], expected, "correct dataset.json", path))


def _is_nifti(item: object) -> bool:
    return isinstance(item, str) and item.lower().endswith(NIFTI_ENDINGS)
