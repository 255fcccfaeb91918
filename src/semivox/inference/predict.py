"""From files to files: a scan or a folder of scans, segmented one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semivox.config import PredictConfig
from semivox.datasets.case import name_problem
from semivox.errors import UserError, listed
from semivox.inference.model import LoadedModel
from semivox.inference.outputs import DISAGREEMENT, UNCERTAINTY, OutputFolder
from semivox.inference.predictor import has_several, predict_case
from semivox.inference.quality import FLAG_SHARE
from semivox.inference.sources import Scan, find_scans, read_scan
from semivox.inference.windows import window_stride
from semivox.io.formats import out_of_memory, shortened_text, too_large
from semivox.nets.cpu import kept
from semivox.progress import Progress

Finisher = Callable[[LoadedModel, Sequence[Scan]], Callable[[Scan, Path], Any]]


@kept()
def predict_files(
    model: LoadedModel,
    source: Path | Mapping[str, Sequence[Path]],
    out: Path,
    config: PredictConfig | None = None,
    *,
    save_probabilities: bool = False,
    save_members: bool = False,
    save_uncertainty: bool = False,
    overwrite: bool = False,
    trust_image_geometry: bool = False,
    series: str | None = None,
    flag_share: float = FLAG_SHARE,
    finisher: Finisher | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Segment a scan or a folder of scans; one scan is in memory at a time.

    Writes `CASE.nii.gz`, `semivox.json` (what the values mean), `quality.csv` (how good each is likely to be)
    and `predict.json` (which model and settings made what). Scans that this model has already segmented with
    these settings are skipped. A scan that cannot be segmented does not stop the others.

    Args: as of `semivox.predict`; and
        source: a file or folder, see `find_scans`; or the channel files of each scan, by its name.
        config: settings of the prediction; None: as the model was saved.
        finisher: called once with the model and the scans; it returns what is called with each scan and its
            label file, those skipped included, e.g. to write another format.
        progress: called with (scans done, scans in all, name) after each scan.

    Raises:
        UserError: nothing to segment, foreign files in `out`, or (at the end) a list of the failed scans.
    """
    config = config or model.settings()
    window_stride(model.plan.patch, config.stride)
    if isinstance(source, Path):
        scans = find_scans(source, len(model.plan.channels), series)
    else:
        scans = [Scan(name, tuple(files)) for name, files in source.items()]
    finish = finisher(model, scans) if finisher else lambda scan, file: None
    settings = {**config.model_dump(mode="json", exclude={"batch"}), "precision": model.precision}
    also = {".npz": save_probabilities, "/": save_members, UNCERTAINTY: save_uncertainty}
    also |= {DISAGREEMENT: save_uncertainty and has_several(model, config)}
    outputs = OutputFolder(out, model, settings, [part for part, asked in also.items() if asked])
    todo = outputs.open(scans, overwrite=overwrite)
    missing, failed = {scan.name for scan in todo}, dict[str, UserError]()
    for scan in scans:
        if scan.name not in missing:
            with _noted(failed, scan):
                finish(scan, outputs.label_file(scan))
    for done, scan in enumerate(todo, start=len(scans) - len(todo) + 1):
        with _noted(failed, scan):
            if (why := name_problem(scan.name)) is not None:
                found = f"{scan.name[:40]}: {why}"
                raise UserError("No file can have the name of this scan", found, do="rename the scan")
            trust = trust_image_geometry or model.plan.trust_image_geometry
            image = read_scan(scan, trust_image_geometry=trust)
            prediction = predict_case(
                model, image, config, probabilities=save_probabilities, members=save_members,
                uncertainty=save_uncertainty,
            )  # fmt: skip
        if scan.name not in failed:
            outputs.write(scan, image.affine, prediction)  # a disk that is full ends it all
            with _noted(failed, scan):
                finish(scan, outputs.label_file(scan))
        if progress is not None:
            progress(done, len(scans), scan.name)
    outputs.write_quality(flag_share)
    if failed:
        raise _failure(failed, len(scans), out)
    return [outputs.label_file(scan) for scan in scans]


@contextmanager
def _noted(failed: dict[str, UserError], scan: Scan) -> Iterator[None]:
    """Note what is wrong with a scan, or that it needs too much memory, and continue."""
    try:
        yield
    except UserError as error:
        failed[scan.name] = error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        failed[scan.name] = too_large(scan.files[0], shortened_text(error))


def _failure(failed: Mapping[str, UserError], total: int, out: Path) -> UserError:
    if total == 1:
        return next(iter(failed.values()))
    what = f"{len(failed)} of {total} scans could not be segmented"
    what += f"; the others are in {out}" if len(failed) < total else ""
    do = "repair or remove them and run the same command again; finished scans are skipped"
    return UserError(what, listed(failed), do=do)
