"""Which files are scored against which, and what they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from semivox.datasets.dataset import open_dataset
from semivox.datasets.declared import Classes, read_classes
from semivox.datasets.layouts import scan_files
from semivox.datasets.splits import load_split
from semivox.errors import UserError
from semivox.files import read_json
from semivox.io.formats import stem

_MAPS = ("_uncertainty", "_disagreement")


def case_files(folder: Path) -> dict[str, Path]:
    """Return the label files of a folder by the name of the case, without hidden ones.

    The maps beside a prediction (`semivox predict --save-uncertainty`) are none; two files of one case are a
    `UserError`.
    """
    found: dict[str, Path] = {}
    for path in scan_files(folder):
        if (other := found.setdefault(stem(path), path)) is not path:
            both, do = f"{other.name} and {path.name}", "remove one of them"
            raise UserError("Two files have the name of one case", both, "one", do, folder)
    maps = {f"{name}{ending}" for name in found for ending in _MAPS}
    return {name: path for name, path in found.items() if name not in maps}


def of_dataset(data: Path, cases: str, split_file: Path | None) -> tuple[dict[str, Path], Classes]:
    """Return the reference label of each test or validation case of a data set, and its classes."""
    dataset = open_dataset(data)
    if cases == "val" and split_file is None and not (data / "splits.json").is_file():
        do = "add --split-file RUN/splits.json"
        raise UserError("It is not known which cases validate", "no splits.json there", None, do, data)
    if cases == "test":
        chosen = dataset.pool("test")
    else:
        split = load_split(split_file or data / "splits.json", dataset, None)
        chosen = tuple(map(dataset.case, split.val))
    files = {case.name: case.label for case in chosen if case.label is not None}
    return files, dataset.classes


def of_folder(folder: Path, predictions: Path) -> tuple[dict[str, Path], Classes]:
    """Return the reference labels of a folder, and the classes that a file beside them declares.

    That is `semivox.json` beside the predictions, or a `dataset.json`, which also tells regions and the value
    to ignore.
    """
    for place in (folder, predictions):
        if not place.is_dir():
            raise UserError("There is no such folder", do="check the path", path=place)
    own = predictions / "semivox.json"
    beside = [place / "dataset.json" for place in (folder, folder.parent, predictions)]
    metas = {path: read_json(path) for path in (*beside, own) if path.is_file()}
    if not metas:
        expected = "semivox.json, as `semivox predict` writes it"
        do = "use --data FOLDER; or put the dataset.json of the references beside them"
        raise UserError("The predictions' classes are not known", "no such file", expected, do, predictions)
    told = {path: read_classes(meta, path) for path, meta in metas.items()}
    classes = told.get(own) or next(iter(told.values()))
    ignored = [one.ignore for one in told.values()] + [metas.get(own, {}).get("ignore_value")]
    ignore = next((value for value in ignored if value is not None and value not in classes.values), None)
    regions = next(one.regions for one in told.values() if one.values == classes.values)
    return case_files(folder), replace(classes, ignore=ignore, regions=regions)
