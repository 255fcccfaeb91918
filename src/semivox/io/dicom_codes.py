"""What segments are, in the codes of SNOMED CT: a small table, and files that add to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from semivox.errors import UserError
from semivox.files import read_yaml

_Value = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16)]
_Meaning = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


class Code(BaseModel):
    """A code of a terminology.

    Attributes:
        value: e.g. "15776009"; at most 16 letters, as DICOM demands.
        scheme: of the terminology, e.g. SCT for SNOMED CT or FMA.
        meaning: in words, e.g. Pancreas.
    """

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


def segment_codes(names: Sequence[str], file: Path | None = None) -> dict[str, SegmentCode]:
    """Return the code of each class.

    Args:
        names: of the classes, without the background.
        file: YAML or JSON, class name to `value`, `scheme`, `meaning` and, if it is no anatomical structure,
            `category`. Classes that it leaves out are looked up in `KNOWN`; all others are `UNKNOWN`.

    Raises:
        UserError: an entry that is no code, or of a class that there is not.
    """
    given = _read(file, names) if file is not None else {}
    return {name: given.get(name) or KNOWN.get(_plain(name), UNKNOWN) for name in names}


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _read(file: Path, names: Sequence[str]) -> dict[str, SegmentCode]:
    content = read_yaml(file)  # JSON is YAML, too
    if not isinstance(content, Mapping):
        raise _bad(file, type(content).__name__)
    if strange := [str(name) for name in content if name not in names]:
        what, expected = "There are codes for classes that the segmentation does not have", ", ".join(names)
        raise UserError(what, ", ".join(strange), f"some of {expected}", "correct the names", file)
    codes = {}
    for name, entry in content.items():
        try:
            codes[str(name)] = SegmentCode.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join([str(name), *map(str, first["loc"])])
            found = f"{where}: {first['msg']} ({json.dumps(first['input'], default=str)})"
            raise _bad(file, found) from error
    return codes


def _bad(file: Path, found: str) -> UserError:
    expected = "an entry a class, with value, scheme and meaning"
    do = "e.g. pancreas: {value: '15776009', scheme: SCT, meaning: Pancreas}"
    return UserError("The codes of the segments cannot be understood", found, expected, do, file)
