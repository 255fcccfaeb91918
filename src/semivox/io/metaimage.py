"""Headers of MetaImage files (.mha, .mhd) that ITK reads wrongly, or that end the whole process inside it."""

from __future__ import annotations

import re
from pathlib import Path

from semivox.io.formats import bad_file

_HEADER_BYTES = 1 << 20  # with the names of many slices
_MOST_CHANNELS = 10_000
_SLICES = "The voxels lie in a file a slice, and the files do not make up the image"


def check_metaimage(path: Path) -> None:
    """Refuse what ITK does not survive, or answers with voxels of memory that nothing was read into.

    These are a number of axes that its arrays cannot hold, a number of channels that no scan has, a pattern
    of file names whose numbers have no step, and slices that are more or fewer than the image has.

    Raises:
        UserError: one of these.
    """
    with path.open("rb") as stream:
        head, _, data = stream.read(_HEADER_BYTES).partition(b"\nElementDataFile")
    for axes in re.findall(rb"(?im)^[ \t]*NDims\s*=[ \t]*([-+]?\d+|)", head):
        if axes not in (b"3", b"4"):
            raise bad_file(path, "The file is not a 3D image", f"NDims = {axes.decode()}", "NDims = 3 or 4")
    for channels in re.findall(rb"(?im)^[ \t]*ElementNumberOfChannels\s*=[ \t]*([-+]?\d+|)", head):
        if not 0 < int(channels or 0) <= _MOST_CHANNELS:
            found = f"ElementNumberOfChannels = {channels.decode()}"
            raise bad_file(path, "This number of channels makes no sense", found, f"1 to {_MOST_CHANNELS}")
    sizes = re.findall(rb"(?im)^[ \t]*DimSize\s*=[ \t]*([-+\d].*)", head)
    named = data.partition(b"=")[2].strip()
    if sizes and named:
        _check_slices(path, [_number(size) for size in sizes[-1].split()], named)


def _check_slices(path: Path, shape: list[int], named: bytes) -> None:
    """Compare the files that `ElementDataFile` names, one for each place on the last axis, with that axis."""
    first, *others = named.splitlines()
    found, words = first.decode(errors="replace").strip(), first.split()
    if first.startswith(b"LIST"):
        names = sum(bool(line.strip()) for line in others)
        if len(words) > 1 and _number(words[1]) not in (0, len(shape) - 1):
            names = 0  # files of other than all axes but the last
    elif b"%" in first:
        if len(words) < 3:
            return
        step = _number(words[3]) if len(words) == 4 else 0
        names = len(range(_number(words[1]), _number(words[2]) + 1, step)) if step > 0 else 0
    else:
        return
    if names != shape[-1]:
        found += f" ({names} files)" if names else ""
        expected = f"{shape[-1]} files for DimSize = {' '.join(map(str, shape))}; "
        expected += "a pattern has a first number, a last one and a step above 0, or only the first"
        raise bad_file(path, _SLICES, found, expected)


def _number(text: bytes) -> int:
    """Read as C does: what follows the digits does not count, and without digits it is 0."""
    found = re.match(rb"[-+]?\d+", text)
    return int(found[0]) if found else 0
