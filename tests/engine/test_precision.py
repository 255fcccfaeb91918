"""Arithmetic of a run."""

from __future__ import annotations

import pytest
import torch

from semivox.engine.precision import resolve_precision
from semivox.errors import UserError
from semivox.hardware import has_bf16

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_bf16_where_the_hardware_has_it(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: there)
    assert has_bf16(CUDA) is there
    assert resolve_precision("auto", CUDA) == ("bf16-mixed" if there else "32-true")
    assert resolve_precision("32", CUDA) == "32-true"
    assert resolve_precision("16", CUDA) == "16-mixed"
    assert resolve_precision("bf16", CPU) == "bf16-mixed"
    with pytest.raises(UserError, match="CUDA"):
        resolve_precision("16", CPU)
