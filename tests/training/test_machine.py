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
from semivox.training.machine import machine
from shell import run

TINY = {"net_patch": (16, 16, 16), "device": "cpu"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the scan that patches are cut from."""
    monkeypatch.setattr(module, "SCAN", (72, 64, 48))


def test_what_is_measured_and_what_is_concluded(quick: None, tmp_path: Path, monkeypatch: Any) -> None:
    """No time at all: the cheapest preset is measured, the dearer ones follow from it by their arithmetic."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = machine(presets=["la-8-lite", "la-16-lite", "phantoms-lite", "lite"], limit_s=0.0, **TINY)
    assert list(tmp_path.iterdir()) == []
    dear, same, demo, lite = found["presets"]
    assert [one["preset"] for one in found["presets"]] == ["la-8-lite", "la-16-lite", "phantoms-lite", "lite"]
    assert (demo["measured"], dear["measured"]) == (True, False)
    assert (lite["patch"], lite["step_s"], lite["hours"]) == (None, None, None)
    for one in (dear, same, demo):
        assert one["step_s"] is not None and one["window_s"] is not None and one["window_s"] > 0
        assert one["hours"] == pytest.approx(one["step_s"] * one["iterations"] / 3600)
    assert (dear["step_s"], dear["iterations"]) == (same["step_s"], 3000)
    # 12 times the voxels; twice the channels make a convolution about four times as dear.
    assert demo["step_s"] is not None and dear["step_s"] is not None
    ratio = dear["step_s"] / dear["patches"] / (demo["step_s"] / demo["patches"])
    assert 12 * 3.5 < ratio < 12 * 4.5
    assert [net["net"] for net in found["nets"]] == ["vnet", "resnet34", "unet3d", "resunet"]
    assert all(net["step_s"] > 0 and net["window_s"] > 0 for net in found["nets"])
    assert [(item["patch"], item["augment"]) for item in found["store"]] == [
        ((32, 32, 16), "intensity"),
        ((64, 64, 48), "intensity"),
    ]
    assert all(item["per_second"] > 0 for item in found["store"])
    assert json.loads(json.dumps(found))["presets"][2]["measured"] is True


def test_with_time_all_are_measured(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.5, 3.0])
    probed: list[str] = []

    def step_seconds(workspace: object, split: object, plan: Plan, config: Config, **limits: Any) -> float:
        assert config.train.workers == 0 and plan.patch == config.plan.patch
        assert 0 < limits["limit_s"] < 60
        probed.append(config.preset or "")
        return next(times)

    monkeypatch.setattr(module, "step_seconds", step_seconds)
    found = machine(presets=["hippocampus-lite", "phantoms-lite"], limit_s=100.0, **TINY)
    assert probed == ["phantoms-lite", "hippocampus-lite"]
    assert [one["step_s"] for one in found["presets"]] == [3.0, 0.5]
    assert all(one["measured"] for one in found["presets"])


def test_every_shipped_preset_has_a_kind_or_a_reason() -> None:
    for name in preset_names():
        config = load_config(preset=name)
        assert config.plan.patch is None or module.step_macs(config) > 0


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, quick: None) -> dict[str, Any]:
    found = machine(presets=["phantoms-lite", "lite"], limit_s=0.0, **TINY)
    monkeypatch.setattr(module, "machine", lambda **_: found)
    return found


def test_the_command(shown: dict[str, Any]) -> None:
    done = run("info", "--machine", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(json.dumps(shown))
    table = run("info", "--machine", COLUMNS="140")
    assert table.exit_code == 0
    for text in ("vnet", "patches a second", "4 x 32x32x16", "4 x ?", "hours"):
        assert text in table.stdout


@pytest.mark.parametrize("arguments", [["info"], ["info", "-d", "somewhere", "--machine"]])
def test_either_a_data_set_or_the_machine(arguments: list[str]) -> None:
    error = run(*arguments).exception
    assert isinstance(error, UserError)
    assert "data set" in str(error)


def test_steps_on_the_grids_of_a_plan_follow_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half more voxels take half more time; features that merge 8 voxels a bit more than an eighth."""
    monkeypatch.setattr(module, "write_scans", lambda folder: None)
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
