"""Settings under which the whole way takes seconds."""

from __future__ import annotations

import pytest

from semivox.config import Config, load_config


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
