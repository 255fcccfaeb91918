"""Bring a data set in: index NIfTI layouts where they are, convert everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from semivox.datasets.dataset import Dataset, open_dataset, write_index
from semivox.datasets.declared import detect
from semivox.datasets.importers.convert import convert
from semivox.datasets.importers.dicom import find_dicom, holds_dicom
from semivox.datasets.importers.found import Found
from semivox.datasets.importers.h5 import find_h5, h5_files
from semivox.datasets.importers.nnunet import find_nnunet
from semivox.datasets.importers.options import ImportOptions
from semivox.datasets.importers.pairs import find_pairs, find_single
from semivox.datasets.importers.table import find_table
from semivox.errors import UserError
from semivox.files import read_json
from semivox.io.formats import ENDINGS, ITK_ENDINGS
from semivox.progress import Progress

Kind = Literal["auto", "nnunet", "msd", "pairs", "csv", "h5", "dicom", "file"]

_FINDERS: dict[str, Callable[[Path, ImportOptions], Found]] = {
    "nnunet": find_nnunet,
    "pairs": find_pairs,
    "csv": find_table,
    "h5": find_h5,
    "dicom": find_dicom,
    "file": find_single,
}


def import_dataset(
    source: Path,
    out: Path,
    *,
    kind: Kind = "auto",
    ignore: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """Make `out` a data set folder that `open_dataset` reads.

    nnU-Net raw and MSD with NIfTI files: an index is written, the scans stay where they are. Everything
    else (image and label pairs by pattern, a CSV table, h5, DICOM, single files, nnU-Net raw with NRRD or
    MetaImage) becomes NIfTI in nnU-Net raw form.

    Args:
        source: a folder, a table or a file.
        out: another folder.
        kind: the layout of `source`; "auto" finds it.
        ignore: the label value of voxels that are not annotated.
        progress: called with (done, total, case name).
        options: see `ImportOptions`.

    Raises:
        UserError: an unknown layout; one that is not `kind`; and what the layout's reader says.
    """
    if source.resolve() == out.resolve():
        raise UserError(
            "The import would overwrite its source", path=source, do="choose another output folder"
        )
    chosen = ImportOptions(**options)
    layout = detect_layout(source, chosen) if kind in ("auto", "nnunet", "msd") else kind
    if kind not in ("auto", layout):
        raise _another_layout(source, kind, layout)
    if layout is None or layout == "msd" or (layout == "nnunet" and not _is_converted(source)):
        write_index(open_dataset(source), out)
        return open_dataset(out)
    _check_kind(source, layout)
    found = _FINDERS[layout](source, chosen)
    settings = {"source": str(source.resolve()), "kind": layout, "ignore": ignore, **chosen.as_dict()}
    return convert(found, out, settings=settings, ignore=ignore, progress=progress)


def detect_layout(source: Path, options: ImportOptions) -> str | None:
    """Tell the layout of a source; None: unknown."""
    if source.is_file():
        return "csv" if source.suffix.lower() == ".csv" else "file"
    if options.images:
        return "pairs"
    path = source / "dataset.json"
    if path.is_file():
        meta = read_json(path)
        if isinstance(meta, dict) and (kind := detect(meta)):
            return kind
    if not source.is_dir():
        return None
    if h5_files(source):
        return "h5"
    return "dicom" if holds_dicom(source) else None


def _is_converted(source: Path) -> bool:
    """Whether an nnU-Net raw folder has files of another format than NIfTI."""
    return read_json(source / "dataset.json").get("file_ending") in ITK_ENDINGS


def _check_kind(source: Path, layout: str) -> None:
    wants_file = layout in ("csv", "file")
    if source.exists() and source.is_file() == wants_file:
        if layout != "file" or source.name.lower().endswith(ENDINGS):
            return
        raise UserError(
            "The file is of no format that can be imported",
            path=source,
            found=source.name,
            expected=", ".join(ENDINGS) + " or .csv",
            do="convert it to NIfTI",
        )
    raise UserError(
        f"The source is no {'file' if wants_file else 'folder'}",
        path=source,
        found="nothing" if not source.exists() else "a folder" if source.is_dir() else "a file",
        expected=f"a {'file' if wants_file else 'folder'} for --kind {layout}",
        do="check the path",
    )


def _another_layout(source: Path, kind: str, layout: str | None) -> UserError:
    return UserError(
        f"The folder is not of the layout {kind}",
        path=source,
        found=layout or "none of the known layouts",
        expected=kind,
        do=f"give the kind that fits, or auto ({', '.join(get_args(Kind))})",
    )
