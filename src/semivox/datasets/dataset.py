"""A data set: channels, classes and cases, found in a folder of nnU-Net raw, MSD or semivox form."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from semivox.datasets import declared
from semivox.datasets.layouts import Case as Case  # noqa: PLC0414
from semivox.datasets.layouts import Finder
from semivox.datasets.listing import Notice, missing_image, name_errors, name_problem, printable, unused_files
from semivox.errors import UserError, shortened, unknown
from semivox.files import read_json, voxel_file, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set without opening a scan."""

    __pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str
    root: Path  # the folder that holds the scans
    channels: tuple[str, ...]
    class_names: tuple[str, ...]  # background first
    class_values: tuple[int, ...]  # the value on disk of each class; that of the background is 0
    cases: tuple[Case, ...]  # sorted by pool and name
    ignore_value: int | None = None  # the value on disk of voxels that are not annotated, if there are any
    order: tuple[str, ...] = ()  # training cases in the order of splits, the listed ones; empty: by name
    regions: declared.Regions = field(default_factory=dict)  # unions of classes that are scored, too
    notices: tuple[Notice, ...] = field(default=(), compare=False)  # unused files, labels that are gone

    @property
    def num_classes(self) -> int:
        """Number of classes, with the background."""
        return len(self.class_names)

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


def open_dataset(folder: Path, errors: list[UserError] | None = None, *, any_format: bool = False) -> Dataset:
    """Read the description of a data set; no image or label file is opened.

    Args:
        folder: in semivox's own form, nnU-Net raw (`channel_names`, `imagesTr/CASE_0000.nii.gz`, `labelsTr`,
            `imagesTs`, `labelsTs`, `imagesUn`) or MSD (`modality`, `training`, `test`), each with `labels`.
        errors: takes what is wrong with single cases, which are then left out. None: the first error is
            raised, and notices are logged as warnings.
        any_format: NRRD or MetaImage files are accepted, too.
    """
    root = folder.resolve()
    path = root / "dataset.json"
    meta = read_json(path) if path.is_file() else None
    if not isinstance(meta, dict) or not {"channel_names", "modality", "training", "format"} & meta.keys():
        raise _unknown_layout(root, meta)
    problems: list[UserError] = []
    if meta.get("format") == "semivox":
        dataset = _read_index(meta, path, problems)
    else:
        dataset = _read_folder(meta, path, problems, any_format=any_format)
    dataset = _checked(dataset, path, problems)
    wanted, count = meta.get("numTraining"), len(dataset.pool("train"))
    if isinstance(wanted, int) and wanted > count:
        what = "There are fewer training cases than dataset.json declares"
        do = "add them, or correct numTraining"
        problems.append(Notice(what, f"{count} cases", f"{wanted} (numTraining)", do, root))
    notices = [problem for problem in problems if isinstance(problem, Notice)]
    others = [problem for problem in problems if not isinstance(problem, Notice)]
    if errors is not None:
        errors += others
    elif others:
        raise others[0]
    else:
        for notice in notices:
            _warn(printable(f"{notice.what}: {notice.found} ({notice.path}); {notice.do}"))
    return replace(dataset, notices=tuple(notices))


def _read_folder(meta: declared.Meta, path: Path, problems: list[UserError], *, any_format: bool) -> Dataset:
    """Read nnU-Net raw or MSD form."""
    root, channels = path.parent, declared.read_channels(meta, path)
    names, values = declared.read_classes(meta, path)
    ending = declared.read_ending(meta, path, any_format=any_format)
    named = meta.get("name")
    return Dataset(
        name=named if isinstance(named, str) and name_problem(named) is None else root.name,
        root=root,
        channels=channels,
        class_names=names,
        class_values=values,
        cases=tuple(Finder(meta, root, channels, ending, problems).cases()),
        ignore_value=declared.read_ignore(meta, path),
        order=declared.read_order(meta, path),
        regions=declared.read_regions(declared.declared_regions(meta), names, values, path),
    )


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

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return (value.relative_to(base) if value.is_relative_to(base) else value).as_posix()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return list(map(plain, value)) if isinstance(value, tuple) else value

    index = asdict(replace(dataset, notices=()))
    del index["notices"]
    write_json(path, {"format": "semivox", "version": 1, **plain(index)})


def _read_index(meta: declared.Meta, path: Path, problems: list[UserError]) -> Dataset:
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
    base, cases, gone = path.parent, [], []
    for case in index.cases:
        label = base / case.label if case.label else None
        if label is not None and not label.is_file():
            gone.append(label.name)
            label = None
        cases.append(replace(case, images=tuple(base / image for image in case.images), label=label))
    if gone:
        what, do = "Label files that the index names are gone", "restore them; their cases count as unlabeled"
        problems.append(Notice(what, shortened(gone, 5), None, do, path))
    return replace(index, cases=tuple(cases), root=base / index.root)


def _checked(dataset: Dataset, path: Path, problems: list[UserError]) -> Dataset:
    """Sort the cases; tell of unused files, bad or repeated names, missing images, no training cases."""
    used = [file for case in dataset.cases for file in (*case.images, case.label) if file is not None]
    used += [part for file in used if file.is_file() and (part := voxel_file(file)) is not None]
    problems += unused_files(dataset.root, used)
    if not any(case.pool == "train" for case in dataset.cases):
        folder = dataset.root / "imagesTr"
        found = shortened(sorted(item.name for item in folder.glob("*")), 5) or "no files"
        expected = "imagesTr/CASE_0000.nii.gz, or a list of training images in dataset.json"
        problems.append(UserError("The data set has no training images", found, expected, path=folder))
    problems += name_errors([case.name for case in dataset.cases], path)
    whole: dict[str, Case] = {}
    for case in (case for case in dataset.cases if name_problem(case.name) is None):
        names = dataset.channels if len(case.images) == len(dataset.channels) else [None] * len(case.images)
        pairs = zip(case.images, names, strict=True)
        missing = [missing_image(case.name, image, name) for image, name in pairs if not image.is_file()]
        problems += missing
        if not missing:
            whole.setdefault(case.name, case)
    return replace(dataset, cases=tuple(sorted(whole.values(), key=lambda case: (case.pool, case.name))))


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
