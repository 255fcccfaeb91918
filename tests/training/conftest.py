"""Makes `engine_toy` importable, also for the script that the kill test starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def same_arithmetic(one_thread: None) -> None:
    """Bit-exact comparisons need the thread count of the script."""
    torch.set_num_threads(1)
