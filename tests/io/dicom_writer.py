"""Small DICOM series, written with pydicom: the tests say where each slice lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_series(
    folder: Path,
    voxels: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (0.5, 0.75, 2.0),
    origin: tuple[float, float, float] = (-10.0, 20.0, 30.0),
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    step: tuple[float, float, float] | None = None,
    intercept: float = -1024.0,
    uid: str | None = None,
    number: int = 2,
    description: str = "axial",
    prefix: str = "IM",
    **changes: dict[int, dict[str, object]],
) -> list[Path]:
    """Write (X, Y, Z) voxels, stored minus `intercept`, one file a slice, named in no order.

    Args:
        spacing: mm along X, Y and from slice to slice.
        step: mm (LPS) from slice to slice; None: along the normal.
        changes: `edit={2: {"Rows": 3}}` sets tags of slice 2.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    along = np.cross(row, column) * spacing[2] if step is None else np.array(step)
    uid = uid or generate_uid()
    paths = []
    for index in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = pydicom.Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        ds.Modality, ds.SeriesInstanceUID, ds.SeriesNumber = "CT", uid, number
        ds.StudyInstanceUID, ds.SeriesDescription, ds.InstanceNumber = "1.2.3.4", description, index + 1
        ds.PatientID, ds.PatientName = "1", "Test"
        ds.ImagePositionPatient = [f"{v:.6f}" for v in np.array(origin) + index * along]
        ds.ImageOrientationPatient = [f"{v:.9f}" for v in orientation]
        ds.PixelSpacing, ds.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        ds.Rows, ds.Columns = voxels.shape[1], voxels.shape[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, intercept
        ds.PixelData = np.ascontiguousarray((voxels[:, :, index].T - intercept).astype("<i2")).tobytes()
        for name, value in changes.get("edit", {}).get(index, {}).items():
            setattr(ds, name, value)
        path = folder / f"{prefix}{(7 * index + 3) % 1000:03d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
