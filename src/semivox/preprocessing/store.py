"""Prepared scans on disk, compressed in small chunks of which a patch needs only a few.

Files of a case: `CASE.image.b2nd`, `CASE.label.b2nd` and, where its label was averaged or predicted,
`CASE.shares.b2nd`, each written whole or not at all. Nothing is kept open or in memory between
two reads, so a store can be sent to any number of worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from semivox.errors import UserError
from semivox.files import replacing
from semivox.io.volume import IGNORE

Array = npt.NDArray[Any]

_CHUNK, _BLOCK = (64, 64, 48), (16, 16, 48)
_FOREGROUND = 10_000
# float16 halves files and the time to read them; up to 64 (standard deviations) it errs by less than 0.02.
_HALF_LIMIT = 64.0
# Chosen by measurement (docs/performance/data.md): ZSTD makes files a fifth smaller and takes three times as
# long to read; byte shuffling costs time and, on scans of few distinct values, size.
# One thread: worker processes are parallel already, and blosc2's threads do not survive a fork.
_COMPRESSION = {
    "codec": blosc2.Codec.LZ4HC,
    "clevel": 5,
    "filters": [blosc2.Filter.NOFILTER],
    "filters_meta": [0],
    "nthreads": 1,
}


class Stored:
    """An array on disk: `stored[:, 8:72, 0:64, 5]` decompresses only the chunks that it touches.

    Each read returns a new array, floating-point values as float32. It may be pickled; the file is opened
    again on the other side. A missing or damaged file is a `UserError`, at opening or reading.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            do = "run semivox prepare; it adds what is missing"
            raise UserError(
                "The case is not prepared", "no such file in the store", "a prepared case", do, path
            )
        with self._reading():
            self._array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams=blosc2.DParams(nthreads=1))
        self.shape: tuple[int, ...] = tuple(self._array.shape)

    def __getitem__(self, key: Any) -> Array:
        with self._reading():
            values = np.asarray(self._array[key])
        return _single(values) if values.dtype == np.float16 else values

    def __reduce__(self) -> tuple[type[Stored], tuple[Path]]:
        return Stored, (self.path,)

    def extra(self, name: str) -> Any:
        """Read what was stored beside the array under this name."""
        with self._reading():
            return self._array.schunk.vlmeta[name]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            what, found = "A file of the store is damaged", " ".join(str(error).split())[:200]
            do = "delete that file and run semivox prepare again; it makes only this one anew"
            expected = "a whole file, as semivox prepare writes it"
            raise UserError(what, found, expected, do, self.path) from error


@dataclass(frozen=True)
class Store:
    """The prepared cases of a workspace; the folder is made at the first write."""

    folder: Path

    def has_image(self, name: str) -> bool:
        return self._path(name, "image").is_file()

    def has_label(self, name: str) -> bool:
        return self._path(name, "label").is_file()

    def has_shares(self, name: str) -> bool:
        return self._path(name, "shares").is_file()

    def image(self, name: str) -> Stored:
        """Open a scan, (C, X, Y, Z) float32."""
        return Stored(self._path(name, "image"))

    def label(self, name: str) -> Stored:
        """Open a label, (X, Y, Z) uint8 class indices."""
        return Stored(self._path(name, "label"))

    def shares(self, name: str) -> Stored:
        """Open the foreground classes' shares of the voxels, (K - 1, X, Y, Z) uint8, 255 for a whole one."""
        return Stored(self._path(name, "shares"))

    def meta(self, name: str) -> dict[str, Any]:
        """Return what was stored with the scan."""
        return dict(self.image(name).extra("meta"))

    def foreground_voxels(self, name: str) -> Array:
        """Return (N, 3) voxel indices, N <= 10,000: of each class as many as of the others, or all it has."""
        indices = np.frombuffer(self.label(name).extra("foreground"), "<u2")
        return indices.reshape(-1, 3).astype(np.int64)

    def write_image(self, name: str, array: Array, meta: Mapping[str, Any]) -> None:
        """Store a scan (C, X, Y, Z) with plain data, rounded to half precision if no value is beyond +-64."""
        half = max(-float(array.min()), float(array.max())) <= _HALF_LIMIT
        values = np.ascontiguousarray(array, np.float16 if half else np.float32)
        self._write(name, "image", values, meta=dict(meta))

    def write_label(self, name: str, label: Array) -> None:
        """Store a label (X, Y, Z) and a fixed random sample of its foreground voxels."""
        values = np.ascontiguousarray(label, np.uint8)
        indices = sample_foreground(values, _FOREGROUND).astype("<u2")
        self._write(name, "label", values, foreground=indices.tobytes())

    def write_shares(self, name: str, shares: Array) -> None:
        """Store the foreground classes' shares, (K - 1, X, Y, Z) uint8."""
        self._write(name, "shares", np.ascontiguousarray(shares, np.uint8))

    def remove(self, name: str) -> None:
        """Delete the files of a case, as far as there are any."""
        for kind in ("image", "label", "shares"):
            self._path(name, kind).unlink(missing_ok=True)

    def _write(self, name: str, kind: str, values: Array, **extras: Any) -> None:
        lead = values.ndim - 3
        chunk = tuple(min(pair) for pair in zip(values.shape[lead:], _CHUNK, strict=True))
        block = tuple(min(pair) for pair in zip(chunk, _BLOCK, strict=True))
        array = blosc2.asarray(
            values,
            chunks=values.shape[:lead] + chunk,
            blocks=(1,) * lead + block,
            cparams=blosc2.CParams(**_COMPRESSION),
            dparams=blosc2.DParams(nthreads=1),
        )
        for key, value in extras.items():
            array.schunk.vlmeta[key] = value
        with replacing(self._path(name, kind)) as temporary:
            temporary.write_bytes(array.to_cframe())

    def _path(self, name: str, kind: str) -> Path:
        file = name.replace("/", "%2F").replace("\\", "%5C")
        return self.folder / f"{file}.{kind}.b2nd"


def sample_foreground(label: Array, limit: int) -> Array:
    """Choose foreground voxels at random, always the same: (N, 3) indices, at most `limit`.

    The limit is shared equally between the classes that are present; of a class with fewer voxels, all are
    taken.
    """
    flat, rng = label.reshape(-1), np.random.default_rng(0)
    where = np.flatnonzero((flat != 0) & (flat != IGNORE))
    classes, chosen = np.unique(flat[where]), [np.zeros(0, np.int64)]
    for value in classes:
        voxels, share = where[flat[where] == value], limit // len(classes)
        chosen.append(voxels if len(voxels) <= share else np.sort(rng.choice(voxels, share, replace=False)))
    return np.stack(np.unravel_index(np.concatenate(chosen), label.shape), axis=1)


def _single(half: Array) -> Array:
    """Turn float16 into float32, six times as fast as `astype` (0.5 ms instead of 3.1 ms for 2 M voxels)."""
    import torch

    return np.asarray(torch.from_numpy(half).float().numpy())
