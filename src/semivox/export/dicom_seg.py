"""`export`: segmentations in the form that other systems want."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from semivox.errors import UserError
from semivox.files import read_json
from semivox.inference.model import LoadedModel
from semivox.inference.outputs import DESCRIPTION, seg_beside
from semivox.inference.predict import Finisher
from semivox.inference.sources import Scan
from semivox.io.dicom import series_of
from semivox.io.dicom_series import choose_series, dicom_package, find_series
from semivox.io.dicom_write import Maker, Origin, segment_codes, write_segmentation


def export_dicom_seg(
    file: Path,
    folder: Path,
    target: Path,
    *,
    series: str | None = None,
    classes: Mapping[str, int] | None = None,
    codes: Path | None = None,
    origin: Origin | None = None,
) -> Path:
    """Write a label map as a DICOM-SEG object; see `semivox.export_dicom_seg`."""
    dicom_package("highdicom", target)
    if target.suffix.lower() != ".dcm":
        do = f"-o {target}.dcm"
        raise UserError("The output is not named as DICOM", target.name, "a name ending in .dcm", do, target)
    if not file.is_file():
        raise UserError("There is no such segmentation", None, "a label map", "check the path", file)
    about = file.parent / DESCRIPTION
    known = read_json(about) if about.is_file() else {}
    values = dict(classes or known.get("labels", {}))
    values = {name: value for name, value in values.items() if value != 0}
    if not values or (origin is None and not known):
        what = f"It is not known {'who made the segmentation' if values else 'what the segmentation holds'}"
        expected = "names of its values, and who made it"
        do = "add --class NAME=VALUE for each class, and --made-by automatic, semiautomatic or manual"
        raise UserError(what, f"no {DESCRIPTION} beside it", expected, do, file)
    maker = Maker(origin or "AUTOMATIC", str(known.get("method", "")), str(known.get("model", "")))
    found = choose_series(find_series(folder), series, folder) if folder.is_dir() else series_of(folder)
    if target.resolve() in (one.resolve() for one in found.files):
        raise UserError("The output would replace a file of the series", path=target, do="choose another -o")
    write_segmentation(target, file, found, values, segment_codes(list(values), codes), maker)
    return target


def dicom_seg_writer(codes: Path | None = None) -> Finisher:
    """Return what makes `predict` write `CASE.seg.dcm` beside each prediction, with these class codes."""

    def finisher(model: LoadedModel, scans: Sequence[Scan]) -> Callable[[Scan, Path], None]:
        if others := [scan for scan in scans if scan.series is None]:
            what, found = "A DICOM-SEG needs a DICOM series to refer to", "a scan of another format"
            do = "leave out --dicom-seg, then semivox export dicom-seg with the series"
            raise UserError(what, found, "a folder of DICOM", do, others[0].files[0])
        dicom_package("highdicom", scans[0].files[0])
        pairs = zip(model.plan.class_names, model.plan.class_values, strict=True)
        values = {name: value for name, value in pairs if value != 0}
        meanings = segment_codes(list(values), codes)
        maker = Maker("AUTOMATIC", str(model.meta["method"]["name"]), model.digest)

        def write(scan: Scan, label_file: Path) -> None:
            assert scan.series is not None
            write_segmentation(seg_beside(label_file), label_file, scan.series, values, meanings, maker)

        return write

    return finisher
