"""From a folder of scans to a workspace that is ready for training, and what this machine can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt

from semivox import config
from semivox.api.arguments import (
    AnyPath,
    Anything,
    Texts,
    Whole,
    checked,
    class_values,
    optional,
    raw_folder,
    settings,
    verb,
)
from semivox.errors import UserError
from semivox.progress import ProgressFactory, no_progress
from semivox.settings import Device, Seed, Workers

if TYPE_CHECKING:
    from semivox.datasets.check import CheckResult
    from semivox.datasets.dataset import Dataset
    from semivox.datasets.splits import Split
    from semivox.preprocessing.inspect import Information
    from semivox.preprocessing.plan import Plan
    from semivox.preprocessing.workspace import Workspace


load_config = verb(config.load_config)


@verb
def open_dataset(data: AnyPath) -> Dataset:
    """Read which cases a folder holds (nnU-Net raw, MSD, or a workspace); no scan is opened."""
    from semivox.datasets.dataset import open_dataset as run

    return run(raw_folder(data))


@verb
def make_phantoms(
    out: AnyPath,
    *,
    train: Whole = 40,
    test: NonNegativeInt = 20,
    classes: Literal[1, 2] = 1,
    shape: tuple[Whole, Whole, Whole] = (80, 80, 64),
    seed: Seed = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write made-up scans with labels as an nnU-Net raw data set; the same seed writes the same bytes.

    Args:
        out: folder to write to.
        train, test: numbers of cases in `imagesTr` and `imagesTs`.
        classes: 1 (atrium) or 2 (body, veins).
        shape: voxels of the isotropic grid.
        seed: of the data set.
        progress: called with (cases done, cases, name) after each case.
    """
    from semivox.datasets.phantom import make_phantoms as run

    return run(Path(out), train=train, test=test, classes=classes, shape=shape, seed=seed, progress=progress)


@verb
def import_dataset(
    source: AnyPath,
    out: AnyPath,
    *,
    kind: Literal[
        "auto", "nnunet", "msd", "pairs", "csv", "h5", "dicom", "file", "la2018", "pancreas-ct", "brats2019"
    ] = "auto",
    images: Texts = (),
    labels: Texts = (),
    channels: Texts = (),
    classes: Mapping[str, int] | Texts | None = None,
    ignore: int | None = None,
    series: str | None = None,
    root: AnyPath | None = None,
    train_list: AnyPath | None = None,
    test_list: AnyPath | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    crop: Literal["none", "published"] | None = None,
    split: str | None = None,
    progress: ProgressFactory = no_progress,
) -> Dataset:
    """Make `out` a data set folder from any layout, or from a published download: `semivox import`.

    Args:
        source: a folder, a CSV table or a scan.
        out: folder for the result.
        kind: layout of the source, which auto finds; or the published data set that it is.
        images: pattern of the image files, CHANNEL=PATTERN or a pattern such as '*/{case}_t1.nii.gz'; one a
            channel.
        labels: pattern of the label files, CLASS=PATTERN or a pattern; of several, a later one wins.
        channels: name of a channel.
        classes: a class and its label value, NAME=VALUE; default: every value found.
        ignore: label value of voxels that are not annotated.
        root: folder that the paths of a table start from.
        train_list: file with the names of the training cases.
        test_list: file with the names of the test cases.
        spacing_mm: voxel size of h5 files.
        crop: published data sets; published: the crops of published code, for la2018 and pancreas-ct made
            with all labels (default: none).
        split: published data sets: which published split; a wrong name lists them.
    """
    from semivox.datasets.importers.bring_in import import_dataset as run
    from semivox.manifest import Manifest

    options = {
        "images": images, "labels": labels, "channels": channels, "classes": class_values(classes),
        "series": series, "root": optional(root), "train_list": optional(train_list),
        "test_list": optional(test_list), "spacing_mm": spacing_mm, "crop": crop, "split": split,
        "ignore": ignore,
    }  # fmt: skip
    given: dict[str, Any] = {
        name: value for name, value in options.items() if value not in (None, (), {}, "")
    }
    with progress("import") as report:
        made = run(Path(source), Path(out), kind=kind, progress=report, **given)
    Manifest(Path(out)).report("import", source=str(source), cases=len(made.cases))
    return made


@verb
def fetch(name: str, out: AnyPath, *, mirror: AnyPath | None = None) -> Path:
    """Download a task of the Medical Segmentation Decathlon; its checksum is verified.

    Args:
        name: a Decathlon task: Task04_Hippocampus, hippocampus or 4.
        out: folder for the data set.
        mirror: folder with the tar files, instead of a download.
    """
    from semivox.datasets.importers.fetch import fetch_task

    return fetch_task(name, Path(out), mirror=optional(mirror))


@verb
def info(
    data: AnyPath,
    *,
    config: Anything = None,
    figure: AnyPath | None = None,
    workers: Workers = 2,
    progress: ProgressFactory = no_progress,
) -> Information:
    """Measure shapes, voxel sizes, intensities, and the class volumes of labeled cases; write nothing there.

    Args:
        figure: PNG for the distributions and some scans.
    """
    if figure is not None and Path(figure).suffix.lower() != ".png":
        do = f"name it {Path(figure).name or 'info'}.png"
        raise UserError("The picture is not named as PNG", str(figure), "a name ending in .png", do)
    from semivox.preprocessing.inspect import info as run
    from semivox.preprocessing.inspect import read_samples

    chosen, folder = settings(config), raw_folder(data)
    found = run(folder, chosen, workers=workers, progress=progress)
    if figure is not None:
        from semivox.reporting.dataset_figure import save_dataset_figure

        samples = read_samples(found, trust_image_geometry=bool(chosen.plan.trust_image_geometry))
        save_dataset_figure(Path(figure), found, samples)
    return found


@verb
def check(
    data: AnyPath, *, config: Anything = None, workers: Workers = 2, progress: ProgressFactory = no_progress
) -> CheckResult:
    """Read every file once and return all problems, each with its file and what to do."""
    from semivox.datasets.check import check_folder as run

    return run(raw_folder(data), settings(config), workers=workers, progress=progress)


@verb
def plan(
    data: AnyPath,
    *,
    preset: str | None = None,
    config: Anything = None,
    work: AnyPath | None = None,
    fresh: bool = False,
    workers: Workers = 0,
    progress: ProgressFactory = no_progress,
) -> tuple[Workspace, Split, Plan]:
    """Choose the split, and voxel size, normalisation and patch; a plan that still fits is only read."""
    from semivox.preprocessing.workspace import prepare_data as run

    chosen = checked(settings(config, preset), data)
    return run(
        Path(data), config=chosen, work=optional(work), fresh=fresh, workers=workers, store=False,
        progress=progress,
    )  # fmt: skip


@verb
def prepare(
    data: AnyPath,
    *,
    preset: str | None = None,
    config: Anything = None,
    work: AnyPath | None = None,
    fresh: bool = False,
    workers: Workers = 2,
    overlays: bool = True,
    progress: ProgressFactory = no_progress,
) -> tuple[Workspace, Split, Plan]:
    """Plan, then resample, normalise and store every training scan; resumes.

    Labels are opened for the labeled and the validation cases only.

    Args:
        overlays: write a picture of each case, with the outline of its label.
    """
    from semivox.preprocessing.workspace import prepare_data as run
    from semivox.reporting.planes import draw_case

    chosen = checked(settings(config, preset), data)
    return run(
        Path(data), config=chosen, work=optional(work), fresh=fresh, workers=workers,
        on_case=draw_case if overlays else None, progress=progress,
    )  # fmt: skip


@verb
def machine(*, device: Device = "auto", progress: ProgressFactory = no_progress) -> dict[str, Any]:
    """Measure how fast this machine trains: `semivox info --machine`."""
    from semivox.training.machine import machine as run

    return run(device=device, progress=progress)
