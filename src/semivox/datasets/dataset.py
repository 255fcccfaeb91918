"""A data set: channels, classes and cases, found in a folder of nnU-Net raw, MSD or semivox form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from semivox.datasets.dataset_index import index_of, read_index
from semivox.datasets.declared import (
    detect,
    read_channels,
    read_classes,
    read_ignore,
    read_order,
    read_region_labels,
)
from semivox.datasets.layouts import (
    Case,
    Report,
    is_file,
    missing_image,
    msd_cases,
    nnunet_cases,
    some,
    stop,
)
from semivox.datasets.regions import Regions, read_regions
from semivox.errors import UserError
from semivox.files import read_json, write_json

__all__ = ["Case", "Dataset", "nearest_hint", "open_dataset", "write_index"]


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set without opening a scan.

    Attributes:
        name: as in its `dataset.json`, else the name of its folder.
        root: the folder that holds the scans.
        channels: their names.
        class_names: background first.
        class_values: the value on disk of each class; that of the background is 0.
        cases: sorted by pool and name.
        ignore_value: the value on disk of voxels that are not annotated; None where there are none.
        order: training cases in the order that splits follow, first those listed; empty: sorted by name.
        regions: values on disk of unions of classes that are scored beside these.
    """

    name: str
    root: Path
    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    class_values: tuple[int, ...]
    cases: tuple[Case, ...]
    ignore_value: int | None = None
    order: tuple[str, ...] = ()
    regions: Regions = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes, with the background."""
        return len(self.class_names)

    @cached_property
    def _by_name(self) -> dict[str, Case]:
        return {case.name: case for case in self.cases}

    def case(self, name: str) -> Case:
        """Give one case; an unknown name is a `UserError` that tells the nearest one."""
        if name not in self._by_name:
            raise UserError(
                f"Unknown case: {name}",
                found=name,
                expected=f"one of the {len(self.cases)} cases of {self.name}",
                do=nearest_hint(name, list(self._by_name)),
            )
        return self._by_name[name]

    def with_label(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the named cases that have a label file, in their order."""
        return tuple(name for name in names if self.case(name).label is not None)

    def pool(self, name: str) -> tuple[Case, ...]:
        """Give the cases of the pool "train", "test" or "extra", sorted by name."""
        return tuple(case for case in self.cases if case.pool == name)


def open_dataset(folder: Path, report: Report = stop) -> Dataset:
    """Read the description of a data set; no image or label file is opened.

    Args:
        folder: with a `dataset.json` of semivox's own form; or of nnU-Net raw form (`channel_names`,
            `labels`, `imagesTr/CASE_0000.nii.gz`, `labelsTr`, `imagesTs`, `labelsTs`, `imagesUn`); or of MSD
            form (`modality`, `labels`, `training`, `test`).
        report: told of what is wrong with single cases; if it returns, those are left out.

    Raises:
        UserError: no such folder or layout; a missing image; a name used twice; a class or channel
            declaration that cannot be used.
    """
    root = folder.resolve()
    path = root / "dataset.json"
    content = read_json(path) if path.is_file() else None
    meta: dict[str, Any] = content if isinstance(content, dict) else {}
    kind = detect(meta)
    if kind is None:
        raise _unknown_layout(root, content)
    if kind == "semivox":
        return _checked(Dataset(**read_index(meta, path)), path, report)
    channels = read_channels(meta, path)
    class_names, class_values = read_classes(meta, path)
    cases = tuple((msd_cases if kind == "msd" else nnunet_cases)(meta, root, channels, report))
    name = str(meta.get("name") or root.name)
    ignore, order = read_ignore(meta, path), read_order(meta, path)
    declared = meta.get("regions", read_region_labels(meta) or None)
    regions = read_regions(declared, class_names, class_values, path)
    dataset = Dataset(name, root, channels, class_names, class_values, cases, ignore, order, regions)
    return _checked(dataset, path, report)


def write_index(dataset: Dataset, folder: Path) -> None:
    """Write `folder`/dataset.json in semivox's own form.

    Paths inside `folder` are stored relative to it, so that the folder can be moved, others absolute. It is a
    snapshot: a label file that comes later is found by opening `dataset.root` and writing the index again.

    Raises:
        UserError: `folder` holds a `dataset.json` of another form, which would be lost.
    """
    base = folder.resolve()
    path = base / "dataset.json"
    if path.is_file() and (not isinstance(meta := read_json(path), dict) or detect(meta) != "semivox"):
        raise UserError(
            "The folder holds a dataset.json of another form",
            path=path,
            found="a file that semivox did not write",
            expected="an empty folder, or one that semivox made",
            do="choose another output folder",
        )

    write_json(path, {"format": "semivox", "version": 1, **index_of(dataset, base)})


def nearest_hint(name: str, known: Sequence[str]) -> str:
    """Word a hint at the most similar of the known names."""
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {matches[0]}?" if matches else f"choose one of {some(known)}"


def _checked(dataset: Dataset, path: Path, report: Report) -> Dataset:
    """Sort the cases; report an empty training pool, names used twice and missing images."""
    if not any(case.pool == "train" for case in dataset.cases):
        folder = dataset.root / "imagesTr"
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        report(
            UserError(
                "The data set has no training images",
                path=folder,
                found=some(names) if names else "no files",
                expected="imagesTr/CASE_0000.nii.gz, or a list of training images in dataset.json",
                do="put the images there, and check the file_ending in dataset.json",
            )
        )
    twice = sorted(name for name, n in Counter(case.name for case in dataset.cases).items() if n > 1)
    if twice:
        report(
            UserError(
                "Two cases have the same name",
                path=path,
                found=some(twice),
                expected="a name for each case, unique over training, test and extra images",
                do="rename the files of one of them",
            )
        )
    whole: dict[str, Case] = {}
    for case in dataset.cases:
        missing = [index for index, image in enumerate(case.images) if not is_file(image)]
        for index in missing:
            channel = dataset.channels[index] if len(case.images) == len(dataset.channels) else None
            report(missing_image(case.name, case.images[index], channel))
        if not missing:
            whole.setdefault(case.name, case)
    ordered = tuple(sorted(whole.values(), key=lambda case: (case.pool, case.name)))
    return replace(dataset, cases=ordered)


def _unknown_layout(root: Path, meta: object) -> UserError:
    if not root.is_dir():
        return UserError(
            "The data set folder does not exist", path=root, expected="a folder", do="check the path"
        )
    if isinstance(meta, dict):
        found = "a dataset.json with the keys " + some(list(meta), 10)
    elif (root / "dataset.json").is_file():
        found = "a dataset.json that holds no table of names and values"
    else:
        found = "no dataset.json, but " + (
            some(sorted(item.name for item in root.iterdir())) or "no files at all"
        )
    return UserError(
        "The folder is no data set of a known layout",
        path=root,
        found=found,
        expected='a dataset.json with "channel_names" (nnU-Net raw), with "modality" or "training" (MSD),'
        ' or with "format": "semivox"',
        do='write one, e.g. {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1}},'
        " beside imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz; or use semivox import for other layouts",
    )
