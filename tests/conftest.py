"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans beside the project; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"needs the real scans in {REAL_DATA}, which are not part of the project")
    return REAL_DATA


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Arrays in tests are tiny: a second thread only waits, and worse so on a busy machine."""
    import torch

    torch.set_num_threads(1)
