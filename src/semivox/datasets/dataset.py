"""A data set: channels, classes and cases, found in a folder of nnU-Net raw, MSD or semivox form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from semivox.datasets.case import Case as Case  # noqa: PLC0414
from semivox.datasets.case import File, Notice, missing_image, name_errors, name_problem, printable
from semivox.datasets.declared import (
    Classes,
    Meta,
    Regions,
    read_channels,
    read_classes,
    read_ending,
    read_order,
)
from semivox.datasets.layouts import Finder, unused_files
from semivox.errors import UserError, shortened, unknown
from semivox.files import read_json, voxel_file, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set without opening a scan."""

    __pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str
    root: File  # the folder that holds the scans
    channels: tuple[str, ...]
    class_names: tuple[str, ...]  # background first
    class_values: tuple[int, ...]  # the value on disk of each class; that of the background is 0
    cases: tuple[Case, ...]  # sorted by pool and name
    ignore_value: int | None = None  # the value on disk of voxels that are not annotated, if there are any
    order: tuple[str, ...] = ()  # training cases in the order of splits, the listed ones; empty: by name
    regions: Regions = field(default_factory=dict)  # unions of classes that are scored, too
    notices: tuple[UserError, ...] = field(default=(), compare=False)  # unused files, labels that are gone

    @property
    def num_classes(self) -> int:
        """Number of classes, with the background."""
        return len(self.class_names)

    @property
    def classes(self) -> Classes:
        """What the label files hold."""
        return Classes(self.class_names, self.class_values, self.ignore_value, self.regions)

    @cached_property
    def _by_name(self) -> dict[str, Case]:
        return {case.name: case for case in self.cases}

    def case(self, name: str, path: Path | None = None) -> Case:
        """Return one case; an unknown name (in the file `path`) is a `UserError`."""
        if name not in self._by_name:
            raise unknown("case", name, self._by_name, path)
        return self._by_name[name]

    def with_label(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of the named cases that have a label file, in their order."""
        return tuple(name for name in names if self.case(name).label is not None)

    def pool(self, name: str) -> tuple[Case, ...]:
        """Return the cases of the pool "train", "test" or "extra", sorted by name."""
        return tuple(case for case in self.cases if case.pool == name)


def open_dataset(folder: Path, *, strict: bool = True, any_format: bool = False) -> Dataset:
    """Read the description of a data set; no image or label file is opened.

    Args:
        folder: in semivox's own form, nnU-Net raw (`channel_names`, `imagesTr/CASE_0000.nii.gz`, `labelsTr`,
            `imagesTs`, `labelsTs`, `imagesUn`) or MSD (`modality`, `training`, `test`), each with `labels`.
        strict: raise the first error about a case, and log notices as warnings. Else such cases are left out,
            and all is told in `Dataset.notices`.
        any_format: NRRD or MetaImage files are accepted, too.
    """
    path = folder.resolve() / "dataset.json"
    meta = read_json(path) if path.is_file() else None
    if not isinstance(meta, dict) or not {"channel_names", "modality", "training", "format"} & meta.keys():
        raise _unknown_layout(path.parent, meta)
    is_own = meta.get("format") == "semivox"
    dataset = _read_index(meta, path) if is_own else _read_folder(meta, path, any_format=any_format)
    missing = {image for case in dataset.cases for image in case.images if not image.is_file()}
    whole = [
        case for case in dataset.cases if not name_problem(case.name) and missing.isdisjoint(case.images)
    ]
    cases = {case.name: case for case in reversed(whole)}.values()  # the first of the same name
    notices = [*dataset.notices, *_problems(dataset, missing, path)]
    wanted, count = meta.get("numTraining"), sum(case.pool == "train" for case in cases)
    if isinstance(wanted, int) and wanted > count:
        what = "There are fewer training cases than dataset.json declares"
        do = "add them, or correct numTraining"
        notices.append(Notice(what, f"{count} cases", f"{wanted} (numTraining)", do, path.parent))
    for error in notices if strict else ():
        if not isinstance(error, Notice):
            raise error
    for notice in notices if strict else ():
        _warn(printable(f"{notice.what}: {notice.found} ({notice.path}); {notice.do}"))
    ordered = sorted(cases, key=lambda case: (case.pool, case.name))
    return replace(dataset, cases=tuple(ordered), notices=tuple(notices))


def _read_folder(meta: Meta, path: Path, *, any_format: bool) -> Dataset:
    """Read nnU-Net raw or MSD form."""
    root, channels, classes = path.parent, read_channels(meta, path), read_classes(meta, path)
    finder = Finder(meta, root, channels, read_ending(meta, path, any_format=any_format))
    name = meta.get("name")
    return Dataset(
        name=name if isinstance(name, str) and name_problem(name) is None else root.name,
        root=root,
        channels=channels,
        class_names=classes.names,
        class_values=classes.values,
        cases=tuple(finder.cases()),
        ignore_value=classes.ignore,
        order=read_order(meta, path),
        regions=classes.regions,
        notices=tuple(finder.problems),
    )


def _read_index(meta: Meta, path: Path) -> Dataset:
    """Read semivox's own form; a label file that is gone makes its case an unlabeled one, with a notice."""
    content = {key: value for key, value in meta.items() if key not in ("format", "version", "kind")}
    try:
        if meta.get("version") != 1:
            raise ValueError(f"version {meta.get('version')}")
        index = TypeAdapter(Dataset).validate_python(content)
        values, count = index.class_values, len(index.class_names)
        if not index.channels or count < 2 or not len({*values}) == len(values) == count or values[0] != 0:
            raise ValueError("class_values: one for each of class_names, all different, 0 first")
    except (ValidationError, ValueError) as error:
        what, found = "The data set's index is damaged or of another version", " ".join(str(error).split())
        raise UserError(what, found[:300], "version 1", "run semivox import again", path) from error
    dataset = _with_paths(index, path.parent.joinpath)
    gone = [case.label for case in dataset.cases if case.label is not None and not case.label.is_file()]
    if not gone:
        return dataset
    what, do = "Label files that the index names are gone", "restore them; their cases count as unlabeled"
    notice = Notice(what, shortened((label.name for label in gone), 5), None, do, path)
    cases = (replace(case, label=None) if case.label in gone else case for case in dataset.cases)
    return replace(dataset, cases=tuple(cases), notices=(notice,))


def _problems(dataset: Dataset, missing: Collection[Path], path: Path) -> Iterator[UserError]:
    """Tell of unused files, no training cases, bad or repeated names, missing images."""
    used = [file for case in dataset.cases for file in (*case.images, case.label) if file is not None]
    used += [part for file in used if file.is_file() and (part := voxel_file(file)) is not None]
    yield from unused_files(dataset.root, used)
    if not dataset.pool("train"):
        folder = dataset.root / "imagesTr"
        found = shortened(sorted(item.name for item in folder.glob("*")), 5) or "no files"
        expected = "imagesTr/CASE_0000.nii.gz, or a list of training images in dataset.json"
        yield UserError("The data set has no training images", found, expected, path=folder)
    yield from name_errors([case.name for case in dataset.cases], path)
    for case in dataset.cases:
        by_channel = len(case.images) == len(dataset.channels)
        for index, image in enumerate(case.images):
            if image in missing:
                yield missing_image(case.name, image, dataset.channels[index] if by_channel else None)


def is_index(folder: Path) -> bool:
    """Whether a folder has a `dataset.json` of semivox's own form: a workspace, or what an import indexed."""
    path, mark = folder / "dataset.json", '"format": "semivox"'
    return path.is_file() and mark in path.read_text(encoding="utf-8", errors="replace")


def write_index(dataset: Dataset, folder: Path) -> None:
    """Write `folder`/dataset.json in semivox's own form.

    Paths inside `folder` are stored relative to it, so that the folder can be moved, others absolute. It is a
    snapshot: a label file that comes later is found by opening `dataset.root` and writing the index again.
    """
    base = folder.resolve()
    path = base / "dataset.json"
    if path.is_file() and not is_index(folder):
        what, do = "The folder holds a dataset.json of another form", "choose another output folder"
        raise UserError(what, "a file that semivox did not write", None, do, path)
    stored = _with_paths(dataset, lambda file: file.relative_to(base) if file.is_relative_to(base) else file)
    index = TypeAdapter(Dataset).dump_python(stored, mode="json", exclude={"notices"})
    write_json(path, {"format": "semivox", "version": 1, **index})


def _with_paths(dataset: Dataset, change: Callable[[Path], Path]) -> Dataset:
    """Change the root and the paths of all files."""
    cases = tuple(
        replace(case, images=tuple(map(change, case.images)), label=case.label and change(case.label))
        for case in dataset.cases
    )
    return replace(dataset, root=change(dataset.root), cases=cases)


@cache
def _warn(text: str) -> None:
    """Log a text once a process, however often the data set is opened."""
    log.warning(text)


def _unknown_layout(root: Path, meta: object) -> UserError:
    if not root.is_dir():
        return UserError("The data set folder does not exist", None, "a folder", "check the path", root)
    names = shortened(sorted(item.name for item in root.iterdir()), 5) or "no files at all"
    found = f"no dataset.json, but {names}" if meta is None else "a dataset.json without names and values"
    if isinstance(meta, dict):
        found = f"a dataset.json with the keys {shortened(meta, 10)}"
    expected = (
        'a dataset.json with "channel_names" (nnU-Net raw), with "modality" or "training" (MSD),'
        ' or with "format": "semivox"'
    )
    do = (
        'write one, e.g. {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1}},'
        " beside imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz; or use semivox import for other layouts"
    )
    return UserError("The folder is no data set of a known layout", found, expected, do, root)
