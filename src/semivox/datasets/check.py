"""One case of a data set read in full: all that the readers object to, and figures to compare."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from semivox.datasets.layouts import Case
from semivox.datasets.listing import Notice, printable
from semivox.errors import UserError
from semivox.io.geometry import (
    affine_text,
    canonical_axes,
    check_grid,
    difference_text,
    is_degenerate,
    same_affine,
)
from semivox.io.nifti import header_affine
from semivox.io.volume import IGNORE, Volume, read_header, read_image, read_label

Array = npt.NDArray[Any]
Severity = Literal["error", "warning"]

_SAMPLE = 500_000
_SPIKE = 20.0  # times the range of the other voxels
_SIDES_MM = (0.01, 50.0)


@dataclass(frozen=True)
class Problem:
    """Something to look at, and what to do about it.

    Attributes:
        severity: an error stops or spoils the training or its scores; a warning may be right as it is.
        what: the problem in one sentence.
        case: name of the case, if it is one's alone.
        path: the file or folder.
        found: what was found.
        expected: what would have been right.
        do: what to do about it.
    """

    severity: Severity
    what: str
    case: str | None = None
    path: str | None = None
    found: str | None = None
    expected: str | None = None
    do: str | None = None

    @staticmethod
    def of(error: UserError, case: str | None = None) -> Problem:
        """Turn a message into an error, or a notice into a warning."""
        path, found, expected = (
            None if value is None else printable(str(value))
            for value in (error.path, error.found, error.expected)
        )
        severity: Severity = "warning" if isinstance(error, Notice) else "error"
        return Problem(severity, error.what, case, path, found, expected, error.do)


@dataclass(frozen=True)
class Levels:
    """Values of one channel of a scan: extremes and percentiles."""

    lowest: float
    low: float
    middle: float
    high: float
    highest: float


@dataclass(frozen=True)
class CheckJob:
    """What a worker is told; a case whose label is hidden comes without its path."""

    case: Case
    channels: tuple[str, ...]
    class_values: tuple[int, ...]
    ignore_value: int | None
    trust: bool


@dataclass
class CaseReport:
    """What was found in one case.

    Attributes:
        case: as it was given.
        problems: of this case alone.
        spacing_mm: canonical axes; None when no channel can be read.
        levels: of each channel that can be read, by its number.
        digests: of each such channel's values and shape, in canonical axes.
        class_voxels: of each class; None without a readable label.
        label_digest: of a label with foreground.
    """

    case: Case
    problems: list[Problem] = field(default_factory=list)
    spacing_mm: tuple[float, float, float] | None = None
    levels: dict[int, Levels] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    class_voxels: tuple[int, ...] | None = None
    label_digest: str | None = None

    def fault(self, error: UserError) -> None:
        self.problems.append(Problem.of(error, self.case.name))

    def warn(self, what: str, path: Path, found: object, expected: str, do: str) -> None:
        self.problems.append(Problem("warning", what, self.case.name, str(path), str(found), expected, do))


def check_case(job: CheckJob) -> CaseReport:
    """Read all files of a case; a problem in one does not hide those of the others."""
    report = CaseReport(job.case)
    first: Volume | None = None
    files = job.case.images
    for index, path in enumerate(files):
        expected = job.channels if len(files) == 1 else 1
        try:
            volume = read_image([path], expected)
            _check_header(path, report)
            if first is not None:
                shape, reference = volume.array.shape[1:], first.array.shape[1:]
                other = f"channel {files[0].name}"
                check_grid(path, shape, volume.affine, reference, first.affine, other, trust=job.trust)
        except UserError as error:
            report.fault(error)
            continue
        for offset, channel in enumerate(volume.array):
            _look_at(channel, volume.affine, path, index + offset, report)
        if first is None:
            first = volume
            _check_spacing(volume, path, report)
    if len(files) not in (1, len(job.channels)):
        report.fault(_wrong_number(job))
    if job.case.label is not None:
        _check_label(job, job.case.label, first, report)
    return report


def _check_label(job: CheckJob, path: Path, image: Volume | None, report: CaseReport) -> None:
    try:
        label = read_label(path, job.class_values, ignore=job.ignore_value)
    except UserError as error:
        report.fault(error)
        _check_header(path, report, image, trust=job.trust)
        return
    _check_header(path, report)
    if image is not None:
        _compare(path, label.array.shape, label.affine, image, report, trust=job.trust)
    counts = np.bincount(label.array.ravel(), minlength=IGNORE + 1)[: len(job.class_values)].tolist()
    report.class_voxels = tuple(counts)
    if any(counts[1:]):
        report.label_digest = _digest(label.array, label.affine)
        return
    found, expected = (
        f"background alone, {counts[0]} voxels",
        "some foreground, if the structure is in the scan",
    )
    do = "if the scan was never segmented, remove the label file: the case is then unlabeled"
    report.warn("The label is empty", path, found, expected, do)


def _look_at(channel: Array, affine: Array, path: Path, index: int, report: CaseReport) -> None:
    """Note digest and levels of a channel (X, Y, Z), and what is odd about it alone."""
    report.digests[index] = _digest(channel, affine)
    flat = channel.reshape(-1)
    step = max(1, flat.size // _SAMPLE)
    low, middle, high = np.percentile(flat[::step], (0.5, 50, 99.5)).tolist()
    levels = Levels(float(flat.min()), low, middle, high, float(flat.max()))
    report.levels[index] = levels
    if levels.lowest == levels.highest:
        found, do = f"the value {levels.lowest:g} in all voxels", "replace this file, or remove the case"
        report.fault(UserError("The image is constant", found, "a scan", do, path))
        return
    width = high - low
    beyond = max(levels.highest - high, low - levels.lowest)
    if width > 0 and beyond > _SPIKE * width:
        what, expected = "A few voxels lie far outside the range of all others", "extremes near most values"
        found = f"{levels.lowest:g} to {levels.highest:g}, but 99 % of the voxels are in {low:g} to {high:g}"
        do = "look at the scan; clip the values if they are no anatomy (normalisation would suffer)"
        report.warn(what, path, found, expected, do)


def _check_spacing(volume: Volume, path: Path, report: CaseReport) -> None:
    axes, _ = canonical_axes(volume.affine)
    x, y, z = (volume.spacing_mm[axis] for axis in axes)
    report.spacing_mm = (x, y, z)
    if not _SIDES_MM[0] <= min(x, y, z) <= max(x, y, z) <= _SIDES_MM[1]:
        expected = f"between {_SIDES_MM[0]} and {_SIDES_MM[1]} mm along each axis"
        do = "correct the header; is it in another unit?"
        report.warn("The voxel size is implausible", path, f"{x:g} x {y:g} x {z:g} mm", expected, do)
    if min(volume.array.shape[1:]) == 1:
        found = " x ".join(map(str, volume.array.shape[1:]))
        do = "remove it, or stack the slices of the scan into one file"
        report.warn("The scan is a single slice", path, found, "a volume", do)


def _check_header(
    path: Path, report: CaseReport, image: Volume | None = None, *, trust: bool = False
) -> None:
    """Look for units and contradictions in a NIfTI header; with an image, also compare the grids."""
    try:
        header = read_header(path)
    except UserError:  # reported by whatever reads the voxels
        return
    shape = tuple(header.get_data_shape())[:3]
    if (unit := {1: "meter", 3: "micrometer"}.get(int(header["xyzt_units"]) & 7)) is not None:
        what, do = "The header's unit of length is not mm", "if its numbers are mm, correct the unit"
        report.warn(what, path, unit, "mm, to which voxel size and origin are converted", do)
    if image is not None and len(shape) == 3:
        _compare(path, shape, header_affine(header), image, report, trust=trust)
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return
    try:
        sform, qform = header.get_sform(), header.get_qform()
    except ValueError as error:
        expected, do = "a rotation", "write the sform into the qform, too: other programs may use it"
        report.warn("The header's qform is no rotation", path, str(error), expected, do)
        return
    if not is_degenerate(sform) and not same_affine(qform, sform, shape):
        report.warn(
            "The header places the scan in two ways",
            path,
            f"qform {affine_text(qform)}, {difference_text(qform, sform, shape)}",
            f"sform {affine_text(sform)}, which counts here; other programs may take the other",
            "find out which one is right, and write it into both",
        )


def _compare(
    path: Path, shape: tuple[int, ...], affine: Array, image: Volume, report: CaseReport, *, trust: bool
) -> None:
    try:
        check_grid(path, shape, affine, image.array.shape[1:], image.affine, "its image", trust=trust)
    except UserError as error:
        report.fault(error)


def _wrong_number(job: CheckJob) -> UserError:
    what = "The image has another number of channels than the data set"
    found = ", ".join(path.name for path in job.case.images)
    expected = f"{len(job.channels)} ({', '.join(job.channels)})"
    do = "correct the list of images, or the channels in dataset.json"
    return UserError(what, found, expected, do, job.case.images[0])


def _digest(array: Array, affine: Array) -> str:
    """Return a digest of shape and values, whatever order and direction of axes, type and compression."""
    orientation = nib.orientations.io_orientation(affine)
    turned = np.ascontiguousarray(nib.orientations.apply_orientation(array, orientation))
    return hashlib.sha256(repr(turned.shape).encode() + turned.tobytes()).hexdigest()
