"""Which files are scored against which, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.declared import Regions, declared_regions, read_classes, read_ignore, read_regions
from semivox.datasets.splits import load_split
from semivox.errors import UserError, shortened
from semivox.files import read_json
from semivox.io.formats import ITK_ENDINGS, NIFTI_ENDINGS, stem

_MAPS = ("_uncertainty", "_disagreement")


@dataclass(frozen=True)
class Classes:
    """What label files hold."""

    names: Sequence[str]  # background first
    values: Sequence[int]  # on disk, of each class
    ignore: int | None = None  # on disk, of reference voxels that are not annotated; nothing is scored there
    regions: Regions = field(default_factory=dict)  # values of unions, scored as rows that means leave out

    @classmethod
    def of(cls, dataset: Dataset) -> Classes:
        """Return those that a data set declares."""
        return cls(dataset.class_names, dataset.class_values, dataset.ignore_value, dataset.regions)

    def changed(self, regions: Mapping[str, Sequence[int]] | None, ignore: int | None) -> Classes:
        """Replace what is not None; regions and a value to ignore that cannot be are a `UserError`."""
        if ignore is not None and ignore in self.values:
            expected = f"a value that is no class, so none of {shortened(self.values)}"
            raise UserError("The value to ignore is that of a class", ignore, expected, "correct --ignore")
        unions = self.regions if regions is None else read_regions(regions, self.names, self.values)
        return replace(self, regions=unions, ignore=self.ignore if ignore is None else ignore)


def case_files(folder: Path) -> dict[str, Path]:
    """Return the label files of a folder by the name of the case, without hidden ones.

    The maps beside a prediction (`semivox predict --save-uncertainty`) are none; two files of one case are a
    `UserError`.
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
    if cases == "val" and split_file is None and not (data / "splits.json").is_file():
        do = "add --split-file RUN/splits.json"
        raise UserError("It is not known which cases validate", "no splits.json there", None, do, data)
    if cases == "test":
        chosen = dataset.pool("test")
    else:
        split = load_split(split_file or data / "splits.json", dataset, None)
        chosen = tuple(map(dataset.case, split.val))
    files = {case.name: case.label for case in chosen if case.label is not None}
    return files, Classes.of(dataset)


def of_folder(folder: Path, predictions: Path) -> tuple[dict[str, Path], Classes]:
    """Return the reference labels of a folder, and the classes that a file beside them declares.

    That is `semivox.json` beside the predictions, or a `dataset.json`, which also tells regions and the value
    to ignore.
    """
    beside = [place / "dataset.json" for place in (folder, folder.parent, predictions)]
    for place in (folder, predictions):
        if not place.is_dir():
            raise UserError("There is no such folder", do="check the path", path=place)
    places = [path for path in (predictions / "semivox.json", *beside) if path.is_file()]
    if not places:
        expected = "semivox.json, as `semivox predict` writes it"
        do = "use --data FOLDER; or put the dataset.json of the references beside them"
        raise UserError("The predictions' classes are not known", "no such file", expected, do, predictions)
    first = read_json(places[0])
    names, values = read_classes(first, places[0])
    told = [(read_json(path), path) for path in places if path.name == "dataset.json"]
    ignored = (read_ignore(*one) for one in told)
    ignore = next((value for value in ignored if value is not None), first.get("ignore_value"))
    alike = (one for one in told if read_classes(*one)[1] == values)
    regions = next((read_regions(declared_regions(meta), names, values, path) for meta, path in alike), {})
    return case_files(folder), Classes(names, values, None if ignore in values else ignore, regions)
