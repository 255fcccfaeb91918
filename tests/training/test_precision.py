"""Arithmetic of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_toy import loaders_for, make_toy, settings

from semivox.errors import UserError
from semivox.training import checkpoints, fabric
from semivox.training.fabric import resolve_precision
from semivox.training.loop import fit

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("quicker", [True, False])
def test_auto_is_bf16_where_that_is_quicker(quicker: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "prefers_bf16", lambda device: quicker)
    assert resolve_precision("auto", CUDA) == ("bf16-mixed" if quicker else "32-true")
    assert resolve_precision("32", CUDA) == "32-true"
    assert resolve_precision("16", CUDA) == "16-mixed"
    assert resolve_precision("bf16", CPU) == "bf16-mixed"
    with pytest.raises(UserError, match="CUDA"):
        resolve_precision("16", CPU)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("asked", ["auto", "32", "bf16"])
def test_bf16_without_instructions_is_warned_of(
    asked: str, there: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fabric, "has_bf16", lambda device: there)
    monkeypatch.setattr(fabric, "prefers_bf16", lambda device: there)
    resolve_precision(asked, CPU)
    assert ("no bfloat16 instructions" in caplog.text) == (asked == "bf16" and not there)


@pytest.mark.parametrize("there", [True, False])
def test_what_a_run_resumes_with(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "has_bf16", lambda device: there)
    monkeypatch.setattr(fabric, "prefers_bf16", lambda device: device == CUDA)
    assert resolve_precision("auto", CPU) == "32-true"
    assert resolve_precision("auto", CPU, "bf16-mixed") == ("bf16-mixed" if there else "32-true")
    assert resolve_precision("auto", CPU, "16-mixed") == "32-true"
    assert resolve_precision("32", CPU, "bf16-mixed") == "32-true"
    assert resolve_precision("auto", CUDA, "32-true") == "bf16-mixed"
    monkeypatch.setattr(fabric, "prefers_bf16", lambda device: True)
    assert resolve_precision("auto", CPU, "32-true") == "32-true"


def test_a_resumed_run_keeps_its_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the trial of the speed comes out otherwise."""
    monkeypatch.setattr(fabric, "has_bf16", lambda device: True)
    for iterations, asked, quicker, expected in (
        (2, "auto", True, "bf16-mixed"),
        (4, "auto", False, "bf16-mixed"),
        (6, "32", True, "32-true"),
    ):
        monkeypatch.setattr(fabric, "prefers_bf16", lambda device, quicker=quicker: quicker)
        config = settings(iterations=iterations, precision=asked)
        fit(make_toy(), loaders_for(config), config, tmp_path)
        state = checkpoints.load(checkpoints.last_path(tmp_path))
        assert (state.iteration, state.precision) == (iterations, expected)


def test_a_pass_without_gradients_does_not_cost_the_next_one_its_own(tmp_path: Path) -> None:
    """A network makes pseudo-labels first and is trained then: also under autocast its weights must learn."""
    toy, config = make_toy(), settings(iterations=1, precision="bf16")

    def ask(labeled: object, unlabeled: object, step: object) -> None:
        with torch.no_grad():
            toy.features(labeled.image)  # type: ignore[attr-defined]

    toy.hook = ask
    before = toy.first.weight.detach().clone()
    fit(toy, loaders_for(config), config, tmp_path)
    assert not torch.equal(toy.first.weight, before)
    assert toy.first.weight.grad is not None
