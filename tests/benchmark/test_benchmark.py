"""A small grid on phantoms: resumed, with failures, with little time."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from semivox.benchmark import cells
from semivox.benchmark.grid import Grid
from semivox.benchmark.grid_file import load_grid
from semivox.benchmark.run import Failure, How, attempt, benchmark, isolated
from semivox.benchmark.schedule import Estimator, _cost, make_cells
from semivox.errors import UserError
from semivox.methods import create
from semivox.methods.cost import counted, without_memory
from semivox.nets import NetFactory
from semivox.training.estimate import windows
from semivox.training.runs import net_sizes
from shell import run

SETTINGS = {
    "net": {"width": 2},
    "plan": {"spacing_mm": [2.5, 2.5, 2.5], "patch": [16, 16, 16]},
    "train": {"iterations": 2, "workers": 0, "schedule": "poly", "precision": "32"},
}


def small(**changes: Any) -> Grid:
    return load_grid(
        changes={
            "methods": ["supervised_matched", "supervised"],
            "labels": [3, 2],
            "seeds": 1,
            "settings": SETTINGS,
            "compare": {"method": "supervised", "reference": "supervised_matched", "labels": 3},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def work(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspaces, prepared once."""
    place = tmp_path_factory.mktemp("benchmark")
    make_cells(phantoms, small(), out=place / "out", work=place / "work")
    return place / "work"


def weights(out: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in out.rglob("model.safetensors")}


def test_a_cell_that_fails_does_not_stop_the_others_and_is_tried_again(
    phantoms: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = cells.train_run

    def fails_once(workspace: Any, split: Any, plan: Any, config: Any, run: Path, **rest: Any) -> Path:
        if config.method.name == "supervised" and config.split.labeled == 3:
            raise RuntimeError("out of luck")
        return train(workspace, split, plan, config, run, **rest)

    monkeypatch.setattr(cells, "train_run", fails_once)
    done = benchmark(phantoms, small(), How(tmp_path, work))
    assert done.failed == {"3 labels, supervised, seed 0": "RuntimeError: out of luck"}
    assert done.tables is not None and len(done.tables.runs) == 3
    assert "3 labels, supervised, seed 0: RuntimeError: out of luck" in (tmp_path / "table.md").read_text()
    details = tmp_path / "runs" / "default" / "3labels" / "supervised" / "seed0" / "failure.txt"
    assert "fails_once" in details.read_text()

    before = weights(tmp_path)
    monkeypatch.setattr(cells, "train_run", train)
    again = benchmark(phantoms, small(), How(tmp_path, work), published="la")
    assert not again.failed and not details.exists()
    after = weights(tmp_path)
    assert len(after) == 4 and before.items() <= after.items(), "finished cells are not trained again"
    assert again.tables is not None
    assert sorted(again.tables.runs["labeled"]) == [2, 2, 3, 3]
    (declared,) = again.tables.comparisons.query("declared").to_dict("records")
    assert (declared["method"], declared["labeled"], declared["n"]) == ("supervised", 3, 2)
    scores = pd.read_csv(tmp_path / "runs/default/2labels/supervised/seed0/test/metrics.csv")
    row = again.tables.runs.query("labeled == 2 and method == 'supervised'").iloc[0]
    assert row["dice"] == pytest.approx(scores.groupby("case")["dice"].mean().mean())
    text = (tmp_path / "table.md").read_text()
    assert "Declared before the first run was finished" in text and "UA-MT" in text
    assert "Not in these tables" not in text
    for name in [
        "table.tex",
        "table.csv",
        "runs.csv",
        "comparisons.csv",
        "dice-default.png",
        "benchmark.json",
    ]:
        assert (tmp_path / name).stat().st_size > 100, name


def test_little_time_takes_the_first_cells(
    phantoms: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = benchmark(phantoms, small(), How(tmp_path, work, max_hours=0))
    assert nothing.tables is None and len(nothing.left) == 4
    monkeypatch.setattr(
        Estimator, "seconds", lambda self, cell: 100.0 if "2labels" in cell.place.folder else 1.0
    )
    some = benchmark(phantoms, small(), How(tmp_path, work, max_hours=0.02))
    assert some.left == ["2 labels, supervised_matched, seed 0", "2 labels, supervised, seed 0"]
    assert some.tables is not None and set(some.tables.runs["labeled"]) == {3}


def test_a_comparison_declared_late_is_called_late(phantoms: Path, work: Path, tmp_path: Path) -> None:
    one = {"labels": [2], "methods": ["supervised_matched", "supervised"]}
    benchmark(phantoms, small(**one, compare=None), How(tmp_path, work))
    assert "No comparison was declared" in (tmp_path / "table.md").read_text()
    late = {"method": "supervised", "reference": "supervised_matched"}
    benchmark(phantoms, small(**one, compare=late), How(tmp_path, work))
    assert "Declared when 2 runs were finished already" in (tmp_path / "table.md").read_text()


def test_runs_of_other_settings_are_not_taken_for_those_of_the_grid(
    phantoms: Path, work: Path, tmp_path: Path
) -> None:
    one: dict[str, Any] = {"labels": [2], "methods": ["supervised"], "compare": None}
    benchmark(phantoms, small(**one), How(tmp_path, work))
    before = weights(tmp_path), (tmp_path / "table.md").read_text()
    longer = small(**one, assignments=["train.iterations=3"])
    for how in (How(tmp_path, work), How(tmp_path, work, dry_run=True), How(tmp_path, work, max_hours=0)):
        with pytest.raises(UserError, match=r"train\.iterations: 2 stored, 3 asked"):
            benchmark(phantoms, longer, how)
    faster = small(**one, assignments=["train.log_every=3"])
    assert benchmark(phantoms, faster, How(tmp_path, work)).tables is not None, "it changes no result"
    assert (weights(tmp_path), (tmp_path / "table.md").read_text()) == before


def test_a_corrected_test_label_is_scored_anew(phantoms: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(phantoms, tmp_path / "data"))
    one = small(labels=[2], methods=["supervised"], compare=None)
    benchmark(data, one, How(tmp_path / "out"))
    (scores,) = (tmp_path / "out").rglob("test/metrics.csv")
    before, trained = scores.read_text(), weights(tmp_path)
    label = min((data / "labelsTs").glob("*.nii.gz"))
    shutil.copyfile(scores.parent / label.name, label)  # as if the prediction were the truth
    benchmark(data, one, How(tmp_path / "out"))
    assert scores.read_text() != before and weights(tmp_path) == trained
    again = scores.stat().st_mtime_ns
    benchmark(data, one, How(tmp_path / "out"))
    assert scores.stat().st_mtime_ns == again, "nothing has changed"


def test_a_forecast_trains_nothing(phantoms: Path, work: Path, tmp_path: Path) -> None:
    found = benchmark(phantoms, small(), How(tmp_path, work, dry_run=True)).forecast
    assert [cell.state for cell in found] == ["open"] * 4
    assert not weights(tmp_path)
    cell, step = found[0].cell, Estimator([], tmp_path / "steps.json").step(found[0].cell)
    method = cell.config.method
    built = without_memory(method.name, method.options, NetFactory(**net_sizes(cell.plan, cell.config)))
    count = windows(cell.config, cell.plan, built)
    assert count >= 40 // 16  # a scan has about 40 voxels along its longest side here, a patch has 16
    assert found[0].seconds == pytest.approx(step * 2 + step / 3 / 2 * count * 2)


def test_a_forecast_of_a_network_that_needs_larger_patches(
    phantoms: Path, work: Path, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "net": {"name": "monai:UNet", "options": {"channels": [2, 2, 2, 2, 2, 2]}}}
    settings["net"]["options"] |= {"strides": [2] * 5, "norm": "batch"}  # type: ignore[index]
    grid = small(settings=settings, methods=["supervised"], compare=None, labels=[2])
    (found,) = benchmark(phantoms, grid, How(tmp_path, work, dry_run=True)).forecast
    assert found.state == "open" and found.cell.cost is not None
    assert found.seconds is not None and found.seconds > 0


@pytest.mark.parametrize("stem", [(1, 1, 1), (2, 2, 1)])
def test_sizes_are_those_of_the_networks_that_are_trained(
    phantoms: Path, tmp_path: Path, stem: tuple[int, int, int]
) -> None:
    """The default's network follows stem and strides of the plan."""
    settings = {**SETTINGS, "plan": {**SETTINGS["plan"], "patch": [16, 16, 32], "stem": [*stem]}}
    grid = small(settings=settings, methods=["labels_only"], compare=None, labels=[2])
    (cell,) = make_cells(phantoms, grid, out=tmp_path, work=tmp_path)
    assert cell.plan.stem == stem and cell.cost is not None
    built = create("labels_only", {}, NetFactory(**net_sizes(cell.plan, cell.config))).eval()
    assert cell.cost.step.parameters == sum(each.numel() for each in built.parameters())
    image = torch.zeros(1, 1, 16, 16, 32)
    with torch.no_grad(), counted(built) as found:
        built.predict(image)
    assert cell.cost.predicting.macs == sum(macs for macs, _ in found.values())


def test_sizes_of_a_published_setting_are_the_published_ones(
    phantoms: Path, work: Path, tmp_path: Path
) -> None:
    """9.44 M; 40.11 GMAC as this package counts, 47.10 as the tables print, whatever the plan's strides."""
    grid = small(settings={**SETTINGS, "net": {}}, methods=["supervised"], compare=None, labels=[2])
    (cell,) = make_cells(phantoms, grid, out=tmp_path, work=work)
    grid_of = {"patch": (112, 112, 80), "strides": ((2, 2, 1), (2, 2, 2))}
    atrium = {**grid_of, "class_names": ("background", "LA")}
    cost = _cost(cell.config, cell.plan.model_copy(update=atrium))
    assert cost is not None and cost.step.parameters == 9_448_866
    assert cost.step.macs / 1e9 == pytest.approx(40.11, abs=0.005)
    assert cost.step.printed_macs / 1e9 == pytest.approx(47.10, abs=0.005)


def test_a_probe_that_fails_is_a_failed_cell(
    phantoms: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semivox.benchmark.schedule.step_seconds", lambda *_: 1 / 0)
    (cell, *_) = benchmark(phantoms, small(), How(tmp_path, work, dry_run=True)).forecast
    assert cell.state == "fails: ZeroDivisionError: division by zero"
    done = benchmark(phantoms, small(), How(tmp_path, work, max_hours=1))
    assert len(done.failed) == 4 and not done.left and done.tables is None


def test_mistakes_are_noticed_before_anything_is_trained(phantoms: Path, work: Path, tmp_path: Path) -> None:
    wrong = {"label": "x", "method": "supervised", "options": {"nett": "vnet"}}
    with pytest.raises(UserError, match="did you mean net"):
        make_cells(phantoms, small(methods=[wrong], compare=None), out=tmp_path, work=work)
    with pytest.raises(UserError, match="both mean 2 labeled cases"):
        make_cells(phantoms, small(labels=[2, 0.33], compare=None), out=tmp_path, work=work)


def test_the_plan_is_made_with_the_fewest_labels(work: Path) -> None:
    from semivox.preprocessing.plan import load_plan

    assert len(load_plan(work / "default" / "plans.json").fingerprint["labeled_cases"]) == 2


def test_a_process_that_dies_is_a_failure_and_the_next_call_has_a_new_one(tmp_path: Path) -> None:
    failure = isolated(signal.raise_signal, signal.SIGKILL)
    assert isinstance(failure, Failure) and "process died" in failure.message
    assert isolated(os.mkdir, tmp_path / "made") is None
    assert (tmp_path / "made").is_dir()
    failure = isolated(os.mkdir, tmp_path / "made")
    assert isinstance(failure, Failure) and failure.message.startswith("FileExistsError")


@pytest.fixture
def listening() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests were started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_an_interruption_also_ends_the_other_process() -> None:
    started = time.monotonic()
    alarm = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        isolated(time.sleep, 100)
    assert time.monotonic() - started < 60


def test_interruptions_go_upwards() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupt)


def test_the_command_ends_with_1_after_a_failure(
    phantoms: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "train_run", lambda *_, **__: 1 / 0)
    typed = "--no-isolate -m supervised -l 2 --seeds 1 --set net.width=2 --set train.workers=0"
    plan = "--set plan.spacing_mm=[2.5,2.5,2.5] --set plan.patch=[16,16,16]"
    done = run("benchmark", "-d", phantoms, "-o", tmp_path, "--work", work, *typed.split(), *plan.split())
    assert done.exit_code == 1
    assert "failed: 2 labels, supervised, seed 0: ZeroDivisionError" in done.output
