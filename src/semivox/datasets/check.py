"""One case of a data set read in full: all that the readers object to, and figures to compare."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import nibabel as nib
import numpy as np

from semivox.datasets.dataset import Case, Dataset
from semivox.datasets.listing import Notice, printable
from semivox.errors import UserError
from semivox.io.formats import Array
from semivox.io.geometry import (
    GridOf,
    affine_text,
    canonical_axes,
    check_grid,
    difference_text,
    is_degenerate,
    same_affine,
)
from semivox.io.nifti import header_affine
from semivox.io.volume import IGNORE, Volume, read_header, read_image, read_label

Severity = Literal["error", "warning"]

_SAMPLE = 500_000
_SPIKE = 20.0  # times the range of the other voxels
_SIDES_MM = (0.01, 50.0)


@dataclass(frozen=True)
class Problem:
    """A message about a data set, as `check` prints it and stores it as JSON; parts as of `UserError`."""

    severity: Severity  # an error stops or spoils training or scores; a warning may be right as it is
    what: str
    case: str | None = None  # its name, if it is one case's alone
    path: str | None = None
    found: str | None = None
    expected: str | None = None
    do: str | None = None

    @staticmethod
    def of(error: UserError, case: str | None = None) -> Problem:
        """Turn a message into an error, or a notice into a warning."""
        parts = (error.path, error.found, error.expected)
        path, found, expected = (None if part is None else printable(str(part)) for part in parts)
        severity: Severity = "warning" if isinstance(error, Notice) else "error"
        return Problem(severity, error.what, case, path, found, expected, error.do)


class CheckJob(NamedTuple):
    """What a worker is told; a case whose label is hidden comes without its path."""

    case: Case
    dataset: Dataset  # without its cases
    trust: bool


class Channel(NamedTuple):
    """A channel of a scan: its file, three percentiles, a digest of shape and values in canonical axes."""

    path: Path
    low: float
    middle: float
    high: float
    digest: str


@dataclass
class CaseReport:
    """What was found in one case; figures of the files that can be read alone."""

    case: Case
    problems: list[UserError] = field(default_factory=list)
    spacing_mm: tuple[float, float, float] | None = None  # along canonical axes
    channels: dict[int, Channel] = field(default_factory=dict)  # by number
    class_voxels: tuple[int, ...] | None = None
    label_digest: str | None = None  # of a label with foreground

    def warn(self, what: str, path: Path, found: object, expected: object, do: str) -> None:
        self.problems.append(Notice(what, found, expected, do, path))


def check_case(job: CheckJob) -> CaseReport:
    """Read all files of a case; a problem in one does not hide those of the others."""
    report, files, names = CaseReport(job.case), job.case.images, job.dataset.channels
    first: Volume | None = None
    for index, path in enumerate(files):
        try:
            volume = read_image([path], names if len(files) == 1 else 1)
        except UserError as error:
            report.problems.append(error)
            continue
        _check_header(path, report)
        shape = volume.array.shape[1:]
        if first is None:
            first = volume
            _check_spacing(volume, path, report)
        elif not _lies_on(path, (shape, volume.affine), first, f"channel {files[0].name}", job, report):
            continue
        for offset, channel in enumerate(volume.array):
            _look_at(channel, volume.affine, path, index + offset, report)
    if len(files) not in (1, len(names)):
        what, found = "The image has another number of channels than the data set", f"{len(files)} files"
        expected = f"{len(names)} ({', '.join(names)})"
        report.problems.append(UserError(what, found, expected, "correct dataset.json", files[0]))
    if job.case.label is not None:
        _check_label(job, job.case.label, first, report)
    return report


def _check_label(job: CheckJob, path: Path, image: Volume | None, report: CaseReport) -> None:
    header = _check_header(path, report)
    try:
        label = read_label(path, job.dataset.class_values, ignore=job.dataset.ignore_value)
        shape, affine = label.array.shape, label.affine
    except UserError as error:
        report.problems.append(error)
        if header is None or len(header.get_data_shape()) != 3:
            return
        label, shape, affine = None, header.get_data_shape(), header_affine(header)
    if image is not None:
        _lies_on(path, (shape, affine), image, "its image", job, report)
    if label is None:
        return
    counts = np.bincount(label.array.ravel(), minlength=IGNORE + 1)[: job.dataset.num_classes].tolist()
    report.class_voxels = tuple(counts)
    if any(counts[1:]):
        report.label_digest = _digest(label.array, label.affine)
        return
    do = "if the scan was never segmented, remove the label file: the case is then unlabeled"
    report.warn("The label is empty", path, f"background alone, {counts[0]} voxels", "some foreground", do)


def _lies_on(path: Path, grid: GridOf, image: Volume, other: str, job: CheckJob, report: CaseReport) -> bool:
    try:
        check_grid(path, grid, image.grid, other, trust=job.trust)
    except UserError as error:
        report.problems.append(error)
        return False
    return True


def _look_at(channel: Array, affine: Array, path: Path, index: int, report: CaseReport) -> None:
    """Note digest and levels of a channel (X, Y, Z), and what is odd about it alone."""
    flat = channel.reshape(-1)
    low, middle, high = np.percentile(flat[:: max(1, flat.size // _SAMPLE)], (0.5, 50, 99.5)).tolist()
    report.channels[index] = Channel(path, low, middle, high, _digest(channel, affine))
    lowest, highest = float(flat.min()), float(flat.max())
    if lowest == highest:
        what, do = "The image is constant", "replace this file, or remove the case"
        report.problems.append(UserError(what, f"the value {lowest:g} in all voxels", "a scan", do, path))
    elif high > low and max(highest - high, low - lowest) > _SPIKE * (high - low):
        what, expected = "A few voxels lie far outside the range of all others", "extremes near most values"
        found = f"{lowest:g} to {highest:g}, but 99 % of the voxels are in {low:g} to {high:g}"
        do = "look at the scan; clip the values if they are no anatomy (normalisation would suffer)"
        report.warn(what, path, found, expected, do)


def _check_spacing(volume: Volume, path: Path, report: CaseReport) -> None:
    axes, _ = canonical_axes(volume.affine)
    x, y, z = (volume.spacing_mm[axis] for axis in axes)
    report.spacing_mm = (x, y, z)
    if not _SIDES_MM[0] <= min(x, y, z) <= max(x, y, z) <= _SIDES_MM[1]:
        what, do = "The voxel size is implausible", "correct the header; is it in another unit?"
        expected = f"between {_SIDES_MM[0]} and {_SIDES_MM[1]} mm along each axis"
        report.warn(what, path, f"{x:g} x {y:g} x {z:g} mm", expected, do)
    if min(volume.array.shape[1:]) == 1:
        what, do = "The scan is a single slice", "remove it, or stack the slices of the scan into one file"
        report.warn(what, path, " x ".join(map(str, volume.array.shape[1:])), "a volume", do)


def _check_header(path: Path, report: CaseReport) -> nib.Nifti1Header | None:
    """Warn of units and contradictions in a NIfTI header, and return it; None where it cannot be read."""
    try:
        header = read_header(path)
    except UserError:  # reported by whatever reads the voxels
        return None
    if (unit := {1: "meter", 3: "micrometer"}.get(int(header["xyzt_units"]) & 7)) is not None:
        what, do = "The header's unit of length is not mm", "if its numbers are mm, correct the unit"
        report.warn(what, path, unit, "mm, to which voxel size and origin are converted", do)
    if int(header["sform_code"]) <= 0 or int(header["qform_code"]) <= 0:
        return header
    sform, shape = header.get_sform(), tuple(header.get_data_shape())[:3]
    with suppress(ValueError):  # a qform that is no rotation places nothing
        qform = header.get_qform()
        if not is_degenerate(sform) and not same_affine(qform, sform, shape):
            found = f"qform {affine_text(qform)}, {difference_text(qform, sform, shape)}"
            expected = f"sform {affine_text(sform)}, which counts here; other programs may take the other"
            do = "find out which one is right, and write it into both"
            report.warn("The header places the scan in two ways", path, found, expected, do)
    return header


def _digest(array: Array, affine: Array) -> str:
    """Return a digest of shape and values, whatever order and direction of axes, type and compression."""
    turned = nib.orientations.apply_orientation(array, nib.orientations.io_orientation(affine))
    return hashlib.sha256(repr(turned.shape).encode() + np.ascontiguousarray(turned).tobytes()).hexdigest()
