"""Which files are scored against which, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semivox.datasets.dataset import open_dataset
from semivox.datasets.declared import Regions, read_classes, read_ignore
from semivox.datasets.splits import load_split
from semivox.errors import UserError
from semivox.files import read_json
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS, stem

_MAPS = ("_uncertainty", "_disagreement")


@dataclass(frozen=True)
class Classes:
    """What label files hold.

    Attributes:
        names: of the classes, background first.
        values: on disk, of each class.
        ignore: value on disk of reference voxels that are not annotated; there nothing is scored.
        regions: values on disk of unions of classes, scored as further rows; means leave them out.
    """

    names: Sequence[str]
    values: Sequence[int]
    ignore: int | None = None
    regions: Regions = field(default_factory=dict)


def case_files(folder: Path) -> dict[str, Path]:
    """Return the label files of a folder by the name of the case, without hidden ones.

    The maps beside a prediction (`semivox predict --save-uncertainty`) are none.

    Raises:
        UserError: two files of one case.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.name.startswith(".") or not path.name.lower().endswith((*NIFTI_ENDINGS, *ITK_ENDINGS)):
            continue
        if stem(path) in found:
            both = f"{found[stem(path)].name} and {path.name}"
            raise UserError("Two files have the name of one case", both, "one", "remove one of them", folder)
        found[stem(path)] = path
    maps = {f"{name}{ending}" for name in found for ending in _MAPS}
    return {name: path for name, path in found.items() if name not in maps}


def of_dataset(data: Path, cases: str, split_file: Path | None) -> tuple[dict[str, Path], Classes]:
    """Return the reference label of each test or validation case of a data set, and its classes."""
    dataset = open_dataset(data)
    if cases == "test":
        chosen = dataset.pool("test")
    else:
        split = load_split(split_file or data / "splits.json", dataset, 0)
        chosen = tuple(map(dataset.case, split.val))
    files = {case.name: case.label for case in chosen if case.label is not None}
    return files, Classes(dataset.class_names, dataset.class_values, dataset.ignore_value, dataset.regions)


def declared_classes(predictions: Path, references: Path) -> Classes:
    """Read the classes from the nearest description, the value to ignore from `dataset.json` if there is one.

    Raises:
        UserError: no description beside either folder.
    """
    beside = [folder / "dataset.json" for folder in (references, references.parent, predictions)]
    places = [path for path in (predictions / "semivox.json", *beside) if path.is_file()]
    if not places:
        what, expected = (
            "The predictions' classes are not known",
            "semivox.json, as `semivox predict` writes it",
        )
        do = "use --data FOLDER; or put the dataset.json of the references beside them"
        raise UserError(what, "no such file", expected, do, predictions / "semivox.json")
    names, values = read_classes(read_json(places[0]), places[0])
    told = (read_ignore(read_json(path), path) for path in places if path.name == "dataset.json")
    ignore = next((value for value in told if value is not None), read_json(places[0]).get("ignore_value"))
    return Classes(names, values, None if ignore in values else ignore)
