"""NIfTI files opened safely: what a header announces is checked before anything is allocated."""

from __future__ import annotations

import zlib
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib

from semivox.io.memory import check_memory

_HEAD = 540  # bytes of the longer of the two headers, NIfTI-2
_BEST_RATIO = 1032  # what deflate can save at most
_SURPLUS = 1 << 20  # bytes that may follow the voxels: some programs pad their files


def open_nifti(path: Path) -> Any:
    """Open a file, also of other formats that nibabel knows; NIfTI comes without extensions.

    A compressed NIfTI file is unpacked whole, which verifies its checksum, but never beyond what its header
    announces.

    Raises:
        UserError: the scan is larger than this machine's memory.
        OSError: the header announces more than the file can hold, or the file holds much more than announced.
        Exception: whatever nibabel and zlib raise on damaged files.
    """
    kind, header = _read_head(path)
    if header is None:
        return nib.load(path)
    size, held = _announced_bytes(header), path.stat().st_size
    if size > held * (_BEST_RATIO if _is_compressed(path) else 1):
        raise OSError(f"the header announces {size} bytes, more than a file of {held} bytes can hold")
    check_memory(header.get_data_shape(), int(header.get_data_dtype().itemsize), path)
    source = BytesIO(_unpack(path.read_bytes(), size + _SURPLUS)) if _is_compressed(path) else str(path)
    # Without the extensions: nibabel would allocate as many bytes as each of them claims to have.
    return kind(kind.ImageArrayProxy(source, header.copy()), header.get_best_affine(), header)


def open_header(path: Path) -> Any:
    """Read the header alone, without extensions; None if the file is not NIfTI.

    Raises:
        Exception: whatever nibabel and zlib raise on damaged files.
    """
    return _read_head(path)[1]


def _read_head(path: Path) -> tuple[Any, Any]:
    """Give image class and header; None for both if the file is not NIfTI."""
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    if _is_compressed(path):
        head = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(head):
            return kind, kind.header_class(head[: kind.header_class.sizeof_hdr])
    return None, None


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _announced_bytes(header: Any) -> int:
    """Length of the unpacked file, by its header."""
    shape = tuple(map(int, header.get_data_shape()))
    if any(side < 0 for side in shape):
        raise OSError(f"the header announces the shape {shape}")
    return int(header.get_data_offset()) + prod(shape) * int(header.get_data_dtype().itemsize)


def _unpack(data: bytes, limit: int) -> bytes:
    """Unpack all members of a gzip file and verify their checksums; more than `limit` bytes are refused."""
    parts, total = [], 0
    while data:
        inflate = zlib.decompressobj(wbits=31)
        while not inflate.eof:
            part = inflate.decompress(data, limit - total + 1)
            parts.append(part)
            total += len(part)
            data = inflate.unconsumed_tail
            if total > limit:
                raise OSError("the file unpacks to more than its header announces")
            if not inflate.eof and not data:
                raise EOFError("the compressed file ends too early")
        data = inflate.unused_data.lstrip(b"\0")
    return b"".join(parts) if len(parts) > 1 else parts[0]
