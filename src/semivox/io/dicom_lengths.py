"""Lengths that a DICOM file declares, checked before GDCM allocates them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

from semivox.io.formats import unreadable

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_META, _DELIMITERS = 0x0002, 0xFFFE
_SYNTAX, _PIXELS, _ITEM = (0x0002, 0x0010), (0x7FE0, 0x0010), (0xFFFE, 0xE000)
_IMPLICIT = b"1.2.840.10008.1.2"
_OTHER = {b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"}  # big endian, deflated: left to the reader
_UNDEFINED = 0xFFFFFFFF


class _Element(NamedTuple):
    tag: tuple[int, int]
    kind: bytes  # value representation; empty where the file does not give it
    length: int
    start: int  # of the value


def check_lengths(path: Path) -> None:
    """Refuse a file in which an element is longer than what follows it.

    GDCM allocates and clears what an element declares, up to 4 GB, before it looks for that many bytes.
    Walks through sequences and their items, up to the pixels. Files without the DICOM prefix are left to the
    reader.

    Raises:
        UserError: such an element, by tag and place.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(128)
        if file.read(4) != b"DICM":
            return
        at, syntax = 132, b""
        while at + 8 <= size:
            group = _number(file, at, 2)
            if group != _META and syntax in _OTHER:
                return
            element = _element(file, at, explicit=group == _META or syntax != _IMPLICIT)
            pixels = element.tag == _PIXELS
            if element.length == _UNDEFINED:
                if pixels or element.kind not in (b"SQ", b""):
                    return
            elif element.start + element.length > size:
                raise unreadable(path, _too_long(element, at, size), "DICOM", "a whole DICOM file")
            if pixels:
                return
            if element.tag == _SYNTAX:
                file.seek(element.start)
                syntax = file.read(element.length).rstrip(b"\0 ")
            inside = element.kind == b"SQ" or element.tag == _ITEM or element.length == _UNDEFINED
            at = element.start + (0 if inside else element.length)


def _element(file: BinaryIO, at: int, *, explicit: bool) -> _Element:
    """The head of the element at a place; a kind that is not two capitals is read as none, as GDCM does."""
    tag = _number(file, at, 2), _number(file, at + 2, 2)
    file.seek(at + 4)
    kind = file.read(2)
    if not explicit or tag[0] == _DELIMITERS or not (kind.isalpha() and kind.isupper()):
        return _Element(tag, b"", _number(file, at + 4, 4), at + 8)
    if kind in _LONG:
        return _Element(tag, kind, _number(file, at + 8, 4), at + 12)
    return _Element(tag, kind, _number(file, at + 6, 2), at + 8)


def _number(file: BinaryIO, at: int, count: int) -> int:
    file.seek(at)
    return int.from_bytes(file.read(count), "little")


def _too_long(element: _Element, at: int, size: int) -> ValueError:
    group, number = element.tag
    return ValueError(
        f"element ({group:04x},{number:04x}) at byte {at} declares {element.length} bytes,"
        f" but {max(0, size - element.start)} follow"
    )
