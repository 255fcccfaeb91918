"""`info --machine` on the CPU, with the smallest things to measure."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from semivox.config import Config, load_config, preset_names
from semivox.errors import UserError
from semivox.preprocessing.plan import Plan
from semivox.training import machine as module
from shell import run

PRESETS = ["la-8-lite", "la-16-lite", "phantoms-lite", "lite"]


def test_the_cheapest_preset_is_measured_even_without_time(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "SCAN", (72, 64, 48))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = module.machine(presets=PRESETS, limit_s=0.0, device="cpu")
    assert list(tmp_path.iterdir()) == []
    assert [one["preset"] for one in found["presets"]] == PRESETS
    demo = found["presets"].pop(2)
    assert demo["step_s"] > 0 and (demo["patch"], demo["patches"]) == ((32, 32, 16), 4)
    assert demo["hours"] == pytest.approx(demo["step_s"] * demo["iterations"] / 3600)
    assert all((one["step_s"], one["hours"]) == (None, None) for one in found["presets"])


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is shown where a step takes 3 s with the phantoms' preset, and 0.5 s with the other."""
    times = iter([3.0, 0.5])

    def step_seconds(workspace: object, split: object, plan: Plan, config: Config, **limits: Any) -> float:
        assert config.train.workers == 0 and plan.patch == config.plan.patch
        assert limits["limit_s"] > 0
        return next(times)

    monkeypatch.setattr(module, "_made_up", lambda folder: None)
    monkeypatch.setattr(module, "step_seconds", step_seconds)
    shown = module.machine(presets=PRESETS, limit_s=1000.0, device="cpu")
    monkeypatch.setattr(module, "machine", lambda **_: shown)
    return shown


def test_presets_that_differ_in_the_split_alone_are_measured_once(found: dict[str, Any]) -> None:
    assert [one["step_s"] for one in found["presets"]] == [0.5, 0.5, 3.0, None]


def test_the_command(found: dict[str, Any]) -> None:
    done = run("info", "--machine", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(json.dumps(found))
    table = run("info", "--machine", COLUMNS="140")
    assert table.exit_code == 0
    for text in ("thread", "4 x 32x32x16", "4 x ?", "hours", "0.42"):
        assert text in table.stdout


def test_the_steps_of_every_preset_with_a_patch_can_be_compared() -> None:
    for config in (load_config(preset=name) for name in preset_names()):
        assert config.plan.patch is None or module._macs(module._plan(config.plan.patch), config) > 0


@pytest.mark.parametrize("arguments", [["info"], ["info", "-d", "somewhere", "--machine"]])
def test_either_a_data_set_or_the_machine(arguments: list[str]) -> None:
    error = run(*arguments).exception
    assert isinstance(error, UserError)
    assert "data set" in str(error)


def test_steps_on_the_grids_of_a_plan_follow_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half more voxels take half more time; features that merge 8 voxels a bit more than an eighth."""
    monkeypatch.setattr(module, "_made_up", lambda folder: None)
    monkeypatch.setattr(module, "step_seconds", lambda *run, **how: 3.0)
    fixed = {"spacing_mm": (1, 1, 1), "crop": "none", "normalisation": ("none",)}
    figures = (dict.fromkeys(("mean", "std", "p005", "p995"), 0.0),)
    rows = [
        {"spacing_mm": [gap] * 3, "stem": [stem] * 3, "patch": [side, 32, 32]}
        for gap, stem, side in ((1.0, 1, 32), (1.0, 1, 48), (2.0, 2, 32))
    ]
    plan = Plan(
        dataset="D", channels=("MR",), class_names=("background", "x"), class_values=(0, 1),
        patch=(32, 32, 32), strides=((2, 2, 2),) * 3, intensity=figures, grids=tuple(rows), **fixed,
    )  # fmt: skip
    config = load_config(method={"name": "self_training"}, net={"width": 8})
    same, longer, merged = module.grid_steps(config, plan)
    assert (same, longer) == (pytest.approx(3.0), pytest.approx(4.5))
    assert 3.0 / 8 < merged < 3.0 / 4
