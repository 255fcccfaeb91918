"""Bring a data set in: index a folder as it is, or turn the published h5 files into NIfTI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from semivox.data.dataset import Dataset, open_dataset, write_index
from semivox.data.layouts import detect, some
from semivox.data.formats import Array
from semivox.data.volume import list_values, read_header, same_affine, write_label, write_map
from semivox.errors import UserError
from semivox.files import read_json, write_json

Kind = Literal["auto", "nnunet", "msd", "h5"]
Progress = Callable[[int, int, str], None]

_H5_NAME = "mri_norm2.h5"


def import_dataset(
    source: Path,
    out: Path,
    *,
    kind: Kind = "auto",
    train_list: Path | None = None,
    test_list: Path | None = None,
    spacing_mm: tuple[float, float, float] = (0.625, 0.625, 0.625),
    class_name: str = "foreground",
    progress: Progress | None = None,
) -> Dataset:
    """Make `out` a data set folder that `open_dataset` reads.

    nnU-Net raw and MSD: an index is written, the scans stay where they are. h5: every `CASE/mri_norm2.h5` or
    `CASE.h5` (keys `image` and `label`, as published for the left atrium and the pancreas) becomes NIfTI in
    nnU-Net raw form. These files store no voxel size: `spacing_mm` is assumed, which `dataset.json` says.
    Files already there with that voxel size are kept, so an interrupted import goes on where it stopped.

    Args:
        source: the folder to import.
        out: another folder.
        kind: the layout of `source`; "auto" looks for a `dataset.json`, then for h5 files.
        train_list: h5 only: names of the training cases, one a line; None: `train.list` in `source` or its
            parent, if there is one.
        test_list: h5 only: names of the test cases, likewise; all other cases are for training.
        spacing_mm: h5 only: voxel size.
        class_name: h5 only: what label 1 is.
        progress: called with (done, total, case name).

    Raises:
        UserError: an unknown layout; one that is not `kind`; a damaged h5 file or one without its keys; lists
            that do not fit the files.
    """
    if source.resolve() == out.resolve():
        raise UserError(
            "The import would overwrite its source", path=source, do="choose another output folder"
        )
    found = _detect(source)
    if kind not in ("auto", found):
        raise UserError(
            f"The folder is not of the layout {kind}",
            path=source,
            found=found or "none of the known layouts",
            expected=kind,
            do="give the kind that fits, or auto",
        )
    if found != "h5":
        write_index(open_dataset(source), out)
        return open_dataset(out)
    train = _read_list(source, "train.list", train_list)
    test = _read_list(source, "test.list", test_list)
    files = _h5_files(source)
    given = [names for names, path in ((train, train_list), (test, test_list)) if path is not None]
    _check_lists(source, files, train, test or (), given)
    roles = {name: "test" if name in (test or ()) else "train" for name in files}
    _convert(files, roles, out, np.diag([*spacing_mm, 1.0]), progress)
    spacing = " x ".join(f"{value:g}" for value in spacing_mm)
    write_json(
        out / "dataset.json",
        {
            "name": out.resolve().name,
            "description": f"Imported from h5 files, which store no voxel size: {spacing} mm is assumed",
            "channel_names": {"0": "MR"},
            "labels": {"background": 0, class_name: 1},
            "numTraining": sum(role == "train" for role in roles.values()),
            "file_ending": ".nii.gz",
        },
    )
    return open_dataset(out)


def _convert(
    files: Mapping[str, Path], roles: Mapping[str, str], out: Path, affine: Array, progress: Progress | None
) -> None:
    """Write image and label of every h5 file whose NIfTI files are not there yet."""
    for done, (name, path) in enumerate(files.items(), start=1):
        suffix = "Ts" if roles[name] == "test" else "Tr"
        image_path = out / f"images{suffix}" / f"{name}_0000.nii.gz"
        label_path = out / f"labels{suffix}" / f"{name}.nii.gz"
        if not (_is_there(image_path, affine) and _is_there(label_path, affine)):
            image, label = _read_h5(path)
            write_label(label_path, label, (0, 1), affine)
            write_map(image_path, image, affine)
        if progress is not None:
            progress(done, len(files), name)


def _detect(source: Path) -> str | None:
    path = source / "dataset.json"
    if path.is_file():
        meta = read_json(path)
        if isinstance(meta, dict) and (kind := detect(meta)):
            return kind
    return "h5" if _h5_files(source) else None


def _h5_files(source: Path) -> dict[str, Path]:
    """Find h5 files by case name, sorted: CASE.h5 and CASE/mri_norm2.h5."""
    single = {path.stem: path for path in source.glob("[!.]*.h5")}
    folders = {path.parent.name: path for path in source.glob(f"[!.]*/{_H5_NAME}")}
    if both := sorted(single.keys() & folders.keys()):
        raise UserError(
            "Two h5 files have the same case name", path=source, found=some(both), do="remove one of them"
        )
    return dict(sorted({**single, **folders}.items()))


def _read_h5(path: Path) -> tuple[Array, Array]:
    """Give image (X, Y, Z) float32 and label (X, Y, Z) uint8 of 0 and 1."""
    try:
        with h5py.File(path) as file:
            keys = list(file)
            if not {"image", "label"} <= set(keys):
                raise UserError(
                    "The h5 file lacks a key",
                    path=path,
                    found="keys " + (", ".join(keys) or "none"),
                    expected="keys image, label",
                    do="rename the keys in the file, or convert it to NIfTI",
                )
            image, label = np.asarray(file["image"][()], np.float32), np.asarray(file["label"][()])
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            "The file cannot be read as h5",
            path=path,
            found=" ".join(str(error).split())[:300],
            expected="a whole h5 file with arrays image and label",
            do="copy or download it again",
        ) from error
    problem = None
    if image.ndim != 3 or image.shape != label.shape or image.size == 0:
        problem = f"shapes {image.shape} and {label.shape}", "two 3D arrays of the same shape"
    elif not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        problem = f"{count} NaN or infinite values in the image", "finite numbers"
    elif (wrong := (label != 0) & (label != 1)).any():
        problem = "label values " + list_values(label[wrong]), "0 and 1"
    if problem is not None:
        found, expected = problem
        do = "correct the file, or convert it to NIfTI"
        raise UserError(
            "The arrays of the h5 file cannot be used", path=path, found=found, expected=expected, do=do
        )
    return image, label.astype(np.uint8)


def _is_there(path: Path, affine: Array) -> bool:
    return path.is_file() and same_affine(np.asarray(read_header(path).get_best_affine()), affine)


def _read_list(source: Path, name: str, given: Path | None) -> tuple[str, ...] | None:
    """Read case names, one a line, also in the forms CASE/mri_norm2.h5 and CASE.h5; None without a file."""
    beside = [path for path in (source / name, source.resolve().parent / name) if path.is_file()]
    path = given or next(iter(beside), None)
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "The list of cases cannot be read",
            path=path,
            found=str(error),
            expected="a text file, one case name a line",
            do="check the path",
        ) from error
    names = (line.strip().removesuffix(f"/{_H5_NAME}").removesuffix(".h5") for line in lines)
    return tuple(name for name in names if name)


def _check_lists(
    source: Path,
    files: Mapping[str, Path],
    train: Sequence[str] | None,
    test: Sequence[str],
    given: Sequence[Sequence[str] | None],
) -> None:
    """Refuse a case in both lists or in neither, and a name without file in a list that was given.

    A list that was found beside the cases may name more than are there: parts of published sets are common.
    """
    both = sorted(set(train or ()) & set(test))
    neither = sorted(files.keys() - {*train, *test}) if train is not None else []
    absent = sorted({name for names in given for name in names or ()} - files.keys())
    for names, what, expected in (
        (both, "Cases are in both lists", "each case in one list"),
        (neither, "Cases are in neither list", "each case in the training or in the test list"),
        (absent, "Cases of the list have no h5 file", f"CASE/{_H5_NAME} or CASE.h5 for each"),
    ):
        if names:
            raise UserError(what, path=source, found=some(names), expected=expected, do="correct the lists")
