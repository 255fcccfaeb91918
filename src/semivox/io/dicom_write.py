"""Segmentations as DICOM-SEG objects that refer to the series they belong to; needs the extra `dicom`.

What segments are is said in the codes of SNOMED CT: a small table, and files that add to it.
"""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from semivox.errors import UserError
from semivox.files import read_yaml, replacing
from semivox.io.dicom import multiframe_volume, place_slices, volume_affine
from semivox.io.dicom_series import Series, dicom_package, read_dataset
from semivox.io.formats import Array, bad_file, shortened_text
from semivox.io.geometry import Volume, onto_grid
from semivox.io.reader import guarded
from semivox.io.volume import read_label
from semivox.version import __version__

Origin = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]
REMARK = "semivox segmentation; not a medical device"  # in the series' description, at most 64 letters

_EXPORT = "export the series again; the NIfTI file of the segmentation can be used as it is"
# Type 2 of the modules Patient and General Study (PS3.3): may be empty; anonymization often drops them
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


_Value = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16)]
_Meaning = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


class Code(BaseModel):
    """A code of a terminology: value ("15776009"), scheme (SCT is SNOMED CT), meaning ("Pancreas")."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    value: _Value
    scheme: _Value = "SCT"
    meaning: _Meaning


class SegmentCode(Code):
    """What a segment is: its type, and the category of that (by default an anatomical structure)."""

    category: Code = Code(value="91723000", meaning="Anatomical Structure")


_TISSUE = Code(value="85756007", meaning="Tissue")
_ABNORMAL = Code(value="49755003", meaning="Morphologically Abnormal Structure")
_NEOPLASM = SegmentCode(value="108369006", meaning="Neoplasm", category=_ABNORMAL)
_ANATOMY = {
    **{"atrium": "59652004", "left atrium": "82471001", "right atrium": "73829009", "heart": "80891009"},
    **{"hippocampus": "5366008", "brain": "12738006", "pancreas": "15776009", "liver": "10200004"},
    **{"spleen": "78961009", "kidney": "64033007", "prostate": "41216001"},
}
UNKNOWN = SegmentCode(value=_TISSUE.value, meaning=_TISSUE.meaning, category=_TISSUE)
KNOWN = {name: SegmentCode(value=value, meaning=name.capitalize()) for name, value in _ANATOMY.items()}
KNOWN |= dict.fromkeys(("tumor", "tumour", "neoplasm"), _NEOPLASM)


@dataclass(frozen=True)
class Maker:
    """Who made a segmentation: a model alone, a model and a person, or a person."""

    origin: Origin = "AUTOMATIC"
    method: str = ""  # that the model was trained with; empty where there is none
    model: str = ""  # digest of the model


def segment_codes(names: Sequence[str], file: Path | None = None) -> dict[str, SegmentCode]:
    """Return the code of each class (the background left out): that of `file`, of `KNOWN`, or `UNKNOWN`.

    The file is YAML or JSON, class name to `value`, `scheme`, `meaning` and, if it is no anatomical
    structure, `category`.
    """
    given = _read_codes(file, names) if file is not None else {}
    plain = {name: " ".join(name.lower().replace("_", " ").replace("-", " ").split()) for name in names}
    return {name: given.get(name) or KNOWN.get(plain[name], UNKNOWN) for name in names}


def _read_codes(file: Path, names: Sequence[str]) -> dict[str, SegmentCode]:
    try:
        codes = TypeAdapter(dict[str, SegmentCode]).validate_python(read_yaml(file))  # JSON is YAML, too
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        what = "The codes of the segments cannot be understood"
        do = "e.g. pancreas: {value: '15776009', scheme: SCT, meaning: Pancreas}"
        raise UserError(what, f"{where}: {first['msg']} ({first['input']})", None, do, file) from error
    if strange := [name for name in codes if name not in names]:
        what = "There are codes for classes that the segmentation does not have"
        raise UserError(what, ", ".join(strange), ", ".join(names), "correct the names", file)
    return codes


@guarded
def write_segmentation(
    path: Path,
    label_file: Path,
    series: Series,
    values: Mapping[str, int],
    codes: Mapping[str, SegmentCode],
    maker: Maker,
) -> None:
    """Write a label map as a binary DICOM-SEG object with one segment for each class.

    Segments are numbered 1, 2, ... in the order of the label values; the value itself is in the segment's
    description. A class without voxels is a segment without frames. The UID is made from the content: the
    same segmentation written twice is one object.

    Args:
        path: ends in `.dcm`.
        label_file: a label map on the voxels of the series; axes may be in another order or direction.
        series: the images; patient, study and frame of reference are theirs.
        values, codes: of each class, without the background.
        maker: who made the label map.
    """
    hd = dicom_package("highdicom", path)
    sources, volume, like = _sources(series)
    known = sorted(values.items(), key=lambda item: item[1])
    found = read_label(label_file, [0, *(value for _, value in known)])  # the numbers of the segments
    if sorted(found.array.shape) != sorted(like.array.shape):
        what, do = "The label map has another shape than the DICOM series", "name the series it was drawn on"
        raise bad_file(label_file, what, found.array.shape, f"{like.array.shape}, of {series}", do)
    numbers = onto_grid(found, like, label_file)
    uids = _uids(numbers, [str(item.SOPInstanceUID) for item in sources], values, codes, maker)
    stack = np.ascontiguousarray(numbers.T)  # (Z, Y, X): frames of rows and columns
    pixels = stack if volume is None else volume.with_array(stack)
    named = enumerate(known, start=1)
    segments = [_segment(hd, number, name, value, codes[name], maker) for number, (name, value) in named]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names and descriptions that the source has
            seg = _segmentation(hd, sources, pixels, segments, uids, maker)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = "The DICOM series cannot be referred to by a DICOM-SEG"
        raise bad_file(series.path, what, shortened_text(error), None, _EXPORT) from error
    with replacing(path) as temporary:
        seg.save_as(temporary)


def _segmentation(
    hd: Any, sources: list[Any], pixels: Any, segments: list[Any], uids: tuple[str, str], maker: Maker
) -> Any:
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=uids[0],
        sop_instance_uid=uids[1],
        series_number=1000 + int(sources[0].get("SeriesNumber") or 0),
        instance_number=1,
        manufacturer="semivox",
        manufacturer_model_name=f"semivox {maker.method}".strip(),
        software_versions=__version__,
        device_serial_number=maker.model[:16] or "none",
        series_description=REMARK,
        content_label="SEGMENTATION",
        content_description="For research; check before use",
        specific_character_set="ISO_IR 192",  # UTF-8: classes may have any name
    )


def _sources(series: Series) -> tuple[list[Any], Any, Volume]:
    """Return the headers of the images in the order of Z, the volume of a multi-frame one, and the grid."""
    first, volume = series.slices[0], None
    if first.frames > 1:
        volume = multiframe_volume(series)
        slices, affine, shape = [first], volume_affine(volume), volume.array.T.shape
    else:
        slices, affine = place_slices(series)
        shape = (*first.size, len(slices))
    sources = [read_dataset(item.path, stop_before_pixels=True) for item in slices]
    for source, item in zip(sources, slices, strict=True):
        if not source.get("FrameOfReferenceUID"):
            what = "The DICOM image has no frame of reference"
            raise bad_file(item.path, what, "no FrameOfReferenceUID", None, _EXPORT)
        for name in _MAY_BE_EMPTY:
            if name not in source:
                setattr(source, name, None)
    return sources, volume, Volume(np.broadcast_to(np.uint8(0), shape), affine)


def _segment(hd: Any, number: int, name: str, value: int, code: SegmentCode, maker: Maker) -> Any:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"semivox {maker.method}".strip(),
        family=_concept(hd, Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")),
        version=__version__,
        source="semivox",
        parameters={"model": maker.model} if maker.model else None,
    )
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=_concept(hd, code.category),
        segmented_property_type=_concept(hd, code),
        algorithm_type=maker.origin,
        algorithm_identification=None if maker.origin == "MANUAL" else algorithm,
    )
    segment.SegmentDescription = f"label value {value}"
    return segment


def _concept(hd: Any, code: Code) -> Any:
    return hd.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def _uids(
    numbers: Array, images: list[str], values: Mapping[str, int], codes: Mapping[str, Any], maker: Maker
) -> tuple[str, str]:
    """Return the UIDs of series and object, made from a hash of the content (2.25 and a UUID, PS3.5 B.2)."""
    digest = hashlib.sha256(np.ascontiguousarray(numbers).tobytes())
    digest.update(repr((images, dict(values), dict(codes), maker, __version__)).encode())
    text = digest.hexdigest()
    series, instance = (uuid.uuid5(uuid.NAMESPACE_OID, f"semivox {kind} {text}") for kind in "si")
    return f"2.25.{series.int}", f"2.25.{instance.int}"
