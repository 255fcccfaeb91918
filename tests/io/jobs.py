"""Functions that guarded processes import: good ones, and each way in which a case can go wrong."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from semivox.io.formats import bad_file
from semivox.io.reader import guarded


def work(job: str) -> str:
    """Do what the job says."""
    if job.strip() == "bad":
        raise bad_file(Path("bad.nii"), "The file is bad", "nothing", "something")
    if job == "bug":
        raise ZeroDivisionError("a bug")
    if job == "crash":
        os.abort()
    if job == "hang":
        time.sleep(60)
    if job == "large":
        np.ones(1 << 50, np.uint8)
    return f"{job} done"


@guarded
def read(path: Path, *, job: str = "") -> str:
    """Do a job in the guarded process."""
    return work(job)


@guarded
def process_id(path: Path) -> int:
    return os.getpid()


@guarded
def numbers(path: Path, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Send an array there and two back, one of them empty."""
    return array * 2, array[:0]
