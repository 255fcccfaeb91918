"""A tiny data set and settings under which the whole way takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from semivox.config import Config, load_config
from semivox.data.phantom_set import make_phantoms


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
