"""What segments are, in the codes of SNOMED CT: a small table, and files that add to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from semivox.errors import UserError
from semivox.files import read_yaml

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


def segment_codes(names: Sequence[str], file: Path | None = None) -> dict[str, SegmentCode]:
    """Return the code of each class.

    Args:
        names: of the classes, without the background.
        file: YAML or JSON, class name to `value`, `scheme`, `meaning` and, if it is no anatomical structure,
            `category`. Classes that it leaves out are looked up in `KNOWN`; all others are `UNKNOWN`.
    """
    given = _read(file, names) if file is not None else {}
    plain = {name: " ".join(name.lower().replace("_", " ").replace("-", " ").split()) for name in names}
    return {name: given.get(name) or KNOWN.get(plain[name], UNKNOWN) for name in names}


def _read(file: Path, names: Sequence[str]) -> dict[str, SegmentCode]:
    try:
        codes = TypeAdapter(dict[str, SegmentCode]).validate_python(read_yaml(file))  # JSON is YAML, too
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        what, do = (
            "The codes of the segments cannot be understood",
            "e.g. pancreas: {value: '15776009', scheme: SCT, meaning: Pancreas}",
        )
        raise UserError(what, f"{where}: {first['msg']} ({first['input']})", None, do, file) from error
    if strange := [name for name in codes if name not in names]:
        what = "There are codes for classes that the segmentation does not have"
        raise UserError(what, ", ".join(strange), ", ".join(names), "correct the names", file)
    return codes
