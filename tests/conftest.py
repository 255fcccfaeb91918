"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from semivox.config import Config, load_config
from semivox.datasets.phantom import make_phantoms

for room in (".", "io", "methods", "reporting"):  # makes `shell`, `scans`, `gradients` ... importable
    sys.path.insert(0, str(Path(__file__).parent / room))

# Also in the programs that tests start: arrays are tiny, a second thread only waits, and worse so on a busy
# machine. Sums of several threads differ in the last bit, too.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell starts background jobs with Ctrl-C ignored, and they hand that on to the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans beside the project; the test is skipped where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"needs the real scans in {REAL_DATA}, which are not part of the project")
    return REAL_DATA


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As above, where an earlier test has changed it."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that the test starts do not count for coverage, which writes a file while they are ended."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and two test phantoms of two classes."""
    return make_phantoms(
        tmp_path_factory.mktemp("phantoms"), train=6, test=2, classes=2, shape=(40, 40, 32), seed=5
    )


@pytest.fixture
def quick() -> Config:
    """Two labeled cases, one for validation, a very narrow pair, a few steps."""
    return load_config(
        method={"name": "dual"},
        net={"width": 2},
        split={"labeled": 2, "val": 1},
        plan={"spacing_mm": (2.5, 2.5, 2.5), "patch": (16, 16, 16)},
        train={"iterations": 4, "workers": 0, "schedule": "poly", "validate_every": 2, "checkpoint_every": 2},
    )
