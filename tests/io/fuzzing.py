"""What the fuzzing tests of all formats share."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from semivox.errors import UserError
from semivox.io.volume import read_header, read_image, read_label


def cases(count: int) -> Any:
    """The same cases in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def damaged(content: bytes, patches: list[tuple[int, bytes]], cut: int | None) -> bytes:
    """Overwrite bytes at the given offsets, then keep the first `cut`."""
    data = bytearray(content)
    for offset, value in patches:
        data[offset : offset + len(value)] = value
    return bytes(data[:cut])


def outcome(read: Callable[[], Any]) -> Any:
    """What was read, or None after a message that names what was found and what to do."""
    try:
        return read()
    except UserError as error:
        assert error.path is not None and error.found is not None and error.do
        return None


def check_readers(path: Path) -> None:
    tracemalloc.start()
    try:
        image = outcome(lambda: read_image([path]))
        label = outcome(lambda: read_label(path, (0, 1, 2)))
        outcome(lambda: read_header(path))
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    for volume in (image, label):
        if volume is not None:
            assert volume.array.size > 0
            assert np.isfinite(volume.array).all() and np.isfinite(volume.affine).all()
            assert all(0 < side < np.inf for side in volume.spacing_mm)
