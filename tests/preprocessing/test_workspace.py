"""A workspace follows its data: changes are taken up and named; what is foreign is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scans import Raw, save

from semivox.config import Config, load_config
from semivox.errors import UserError
from semivox.files import locked
from semivox.preprocessing.plan import Plan, load_plan
from semivox.preprocessing.workspace import Workspace, open_workspace, overlay_name, prepare_data
from semivox.run import Run

DOUBLE = np.diag([2.0, 1, 1, 1])
PATCH: dict[str, Any] = {"plan": {"patch": (16, 16, 16)}}


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 9, (20, 18, 12)).astype(np.float32)


def label(first: int = 4, value: int = 1) -> np.ndarray:
    array = np.zeros((20, 18, 12), np.uint8)
    array[first:9, 5:12, 3:7] = value
    return array


def declare(root: Path, channel: str = "MR", **labels: int) -> None:
    Raw(root, labels or {"ball": 1}, (channel,))


def add(root: Path, name: str, seed: int, *, labeled: bool = False) -> None:
    save(root / f"imagesTr/{name}_0000.nii.gz", image(seed))
    if labeled:
        save(root / f"labelsTr/{name}.nii.gz", label())


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Four scans, two of them labeled."""
    root = tmp_path / "raw"
    declare(root)
    for seed, name in enumerate("abcd"):
        add(root, name, seed, labeled=name in "ab")
    return root


def prepare(data: Path, work: Path | None = None, **options: Any) -> tuple[Workspace, Any, Plan]:
    config = options.pop("config", None) or load_config(**PATCH)
    return prepare_data(data, work=work, config=config, workers=0, **options)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def written(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Names of the store's cases whose files are new or other ones."""
    changed = {name for name in after if after[name] != before.get(name)}
    return {Path(name).name.removesuffix(".b2nd") for name in changed if name.endswith("b2nd")}


def test_the_same_call_again_writes_nothing(raw: Path, tmp_path: Path) -> None:
    """Not even where files were only touched, once their content has been compared."""
    work = tmp_path / "w"
    prepare(raw, work)
    before = tree(work)
    prepare(raw, work)
    prepare(work)
    assert tree(work) == before
    for path in (raw / "imagesTr").iterdir():
        os.utime(path, (1, 1))
    prepare(raw, work)
    assert not written(before, tree(work))
    touched = tree(work)
    prepare(raw, work)
    assert tree(work) == touched


@pytest.mark.parametrize(
    ("name", "file", "array", "again"),
    [
        ("a", "labelsTr/a.nii.gz", label(6), {"a.image", "a.label"}),
        ("b", "imagesTr/b_0000.nii.gz", image(7), {"b.image", "b.label"}),
        ("c", "imagesTr/c_0000.nii.gz", image(8), {"c.image"}),
    ],
)
def test_a_corrected_file_is_prepared_anew_and_named(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, file: str, array: Any, again: Any
) -> None:
    work = tmp_path / "w"
    workspace, split, plan = prepare(raw, work)
    before, made_from = tree(work), workspace.made_from(split, plan)
    save(raw / file, array)
    workspace, split, plan = prepare(raw, work)
    assert written(before, tree(work)) == again
    assert f"{file} has changed: {name} is prepared anew" in caplog.text
    if "labels" in file:
        assert workspace.store.label(name)[:].sum() == array.sum()
    now = workspace.made_from(split, plan)
    assert {key for key, value in now["files"].items() if value != made_from["files"][key]} == {file}
    other = tmp_path / "fresh"
    prepare(raw, other)
    names = [f"store/{key}.b2nd" for key in again]
    assert [tree(work)[key][1] for key in names] == [tree(other)[key][1] for key in names]


def test_what_left_the_data_set_leaves_the_store(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "w"
    prepare(raw, work)
    (raw / "labelsTr/b.nii.gz").unlink()
    (raw / "imagesTr/d_0000.nii.gz").unlink()
    workspace, split, _ = prepare(raw, work)
    assert (split.labeled, split.unlabeled) == (("a",), ("b", "c"))
    assert not workspace.store.has_label("b") and not workspace.store.has_image("d")
    assert workspace.store.has_image("b") and workspace.store.has_label("a")
    assert "The label file of b is gone" in caplog.text and "removed from the store: d" in caplog.text
    assert [case.name for case in open_workspace(work).dataset.cases] == ["a", "b", "c"]


@pytest.mark.parametrize("through_workspace", [False, True])
def test_new_cases_new_labels_and_another_number_of_labels_are_taken_up(
    raw: Path, tmp_path: Path, through_workspace: bool
) -> None:
    work = tmp_path / "w"
    one = load_config(split={"labeled": 1}, **PATCH)
    assert prepare(raw, work, config=one)[1].labeled == ("a",)
    again = work if through_workspace else raw
    add(raw, "e", 9, labeled=True)
    save(raw / "labelsTr/c.nii.gz", label())
    workspace, split, _ = prepare(again, None if through_workspace else work)
    assert (split.labeled, split.unlabeled) == (("a", "b", "c", "e"), ("d",))
    assert all(workspace.store.has_label(name) for name in split.labeled)
    assert json.loads((work / "splits.json").read_text())["folds"][0]["labeled"] == ["a", "b", "c", "e"]
    assert prepare(again, None if through_workspace else work, config=one)[1].labeled == ("a",)


def test_an_edited_split_is_kept_and_said_so(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "w"
    workspace, _, _ = prepare(raw, work)
    content = json.loads(workspace.splits_file.read_text())
    content["folds"][0] |= {"labeled": ["b"], "unlabeled": ["c"], "val": ["a"]}
    workspace.splits_file.write_text(json.dumps(content))
    add(raw, "e", 9, labeled=True)
    split = prepare(raw, work)[1]
    assert (split.labeled, split.how) == (("b",), "as edited in splits.json")
    assert "splits.json, which was edited; it does not name d, e" in caplog.text
    asked = load_config(split={"labeled": 2}, **PATCH)
    assert prepare(raw, work, config=asked)[1].labeled == ("a", "b")
    assert json.loads(workspace.splits_file.read_text()) == content
    assert prepare(raw, work, fresh=True)[1].labeled == ("a", "b", "e")


def test_a_plan_follows_its_scans_unless_it_was_edited(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = tmp_path / "w"
    workspace, _, plan = prepare(raw, work)
    assert plan.spacing_mm == (1, 1, 1)
    for seed, name in enumerate("abc"):
        save(raw / f"imagesTr/{name}_0000.nii.gz", image(seed), DOUBLE)
        if name in "ab":
            save(raw / f"labelsTr/{name}.nii.gz", label(), DOUBLE)
    workspace, _, plan = prepare(raw, work)
    assert plan.spacing_mm == (2, 1, 1) == load_plan(workspace.plan_file).spacing_mm
    assert "Planned anew, because this has changed: imagesTr/a_0000.nii.gz" in caplog.text
    assert "another spacing_mm: all scans are prepared anew" in caplog.text
    assert workspace.store.image("a").shape[1:] == (20, 18, 12)
    edited = plan.model_dump(mode="json") | {"spacing_mm": [4, 2, 2]}
    workspace.plan_file.write_text(json.dumps(edited))
    save(raw / "imagesTr/d_0000.nii.gz", image(8))
    workspace, _, plan = prepare(raw, work)
    assert plan.spacing_mm == (4, 2, 2)
    assert workspace.store.image("a").shape[1:] == (10, 9, 6)
    assert "plans.json was edited and is kept" in caplog.text


def test_a_new_case_keeps_the_plan(raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = tmp_path / "w"
    _, _, plan = prepare(raw, work)
    add(raw, "e", 9)
    assert prepare(raw, work)[2] == plan
    assert "not measured for plans.json, which is kept: e" in caplog.text


def test_other_class_values_mean_another_plan(raw: Path, tmp_path: Path) -> None:
    declare(raw, one=1, two=2)
    save(raw / "labelsTr/b.nii.gz", label(value=2))
    work = tmp_path / "w"
    workspace, _, _ = prepare(raw, work)
    assert (workspace.store.label("a")[:].max(), workspace.store.label("b")[:].max()) == (1, 2)
    declare(raw, two=2, one=1)
    workspace, _, plan = prepare(raw, work)
    assert plan.class_names == workspace.dataset.class_names
    order = workspace.dataset.class_values
    found = [workspace.store.label(name)[:].max() for name in "ab"]
    assert [order[index] for index in found] == [1, 2]
    text = workspace.plan_file.read_text()
    workspace.plan_file.write_text(text.replace('"patch"', '"patch" '))
    declare(raw, three=1, four=2)
    with pytest.raises(UserError, match=r"(?s)edited plan does not fit.*class_names"):
        prepare(raw, work)


def test_a_ct_plan_follows_its_labels_and_hides_none(raw: Path, tmp_path: Path) -> None:
    declare(raw, channel="CT")
    work = tmp_path / "w"
    one = load_config(split={"labeled": 1}, **PATCH)
    _, _, plan = prepare(raw, work, config=one)
    assert prepare(raw, work)[2] == plan
    save(raw / "labelsTr/a.nii.gz", label(6))
    changed = prepare(raw, work)[2]
    assert changed.intensity != plan.intensity
    with pytest.raises(UserError, match=r"(?s)labels that this split hides.*b"):
        prepare(raw, work, config=one)


def test_another_data_set_of_the_same_name_is_refused(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "one/data", tmp_path / "two/data"
    for root in (first, second):
        shutil.copytree(raw, root)
    monkeypatch.chdir(tmp_path)
    workspace, _, _ = prepare(first)
    assert workspace.folder == Path("semivox-work/data")
    before = tree(workspace.folder)
    with pytest.raises(UserError, match=rf"(?s)another data set.*data in {first}.*data in {second}"):
        prepare(second)
    with pytest.raises(UserError, match="another data set"):
        prepare(second, store=False, fresh=True)
    assert tree(workspace.folder) == before
    first.rename(tmp_path / "data")
    prepare(tmp_path / "data")
    assert not written(before, tree(workspace.folder))


def test_settings_of_the_plan_are_not_changed_silently(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "w")
    with pytest.raises(UserError, match=r"(?s)planned with other settings.*patch: \(16, 16, 16\) stored"):
        prepare(raw, tmp_path / "w", config=load_config(plan={"patch": (32, 16, 16)}))


def test_a_refused_start_leaves_no_trace(raw: Path, tmp_path: Path) -> None:
    work = tmp_path / "made/w"
    with pytest.raises(UserError, match="not enough"):
        prepare(raw, work, config=load_config(split={"labeled": 9}))
    (raw / "imagesTr/c_0000.nii.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(UserError, match=r"c_0000\.nii\.gz"):
        prepare(raw, work)
    for name in "ab":
        save(raw / f"labelsTr/{name}.nii.gz", label(value=0))
    add(raw, "c", 2)
    for store in (True, False):
        with pytest.raises(UserError, match="All labels of the labeled cases are empty"):
            prepare(raw, work, store=store)
    assert not work.parent.exists()


def test_fresh_removes_what_semivox_wrote_and_nothing_else(raw: Path, tmp_path: Path) -> None:
    work = tmp_path / "w"
    for name in ("store/a.txt", "overlays/mine.png", "notes.txt"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("mine")
    prepare(raw, work, on_case=draw)
    assert (work / "overlays/a.png").is_file()
    foreign = {"store/a.txt", "overlays/mine.png", "notes.txt"}
    Workspace(work, open_workspace(work).dataset).clear()
    assert tree(work).keys() == foreign
    prepare(raw, work)
    before = tree(work)
    prepare(raw, work, fresh=True)
    assert tree(work).keys() == before.keys()
    assert written(before, tree(work)) == {"a.image", "a.label", "b.image", "b.label", "c.image", "d.image"}


def draw(folder: Path, plan: Plan, name: str, image: np.ndarray, label: np.ndarray | None) -> None:
    path = folder / overlay_name(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{name} {plan.spacing_mm} {image.shape} {label is None}")


@pytest.mark.parametrize(
    "name", ["dataset.json", "plans.json", "splits.json", "store/store.json", "overlays/a.png"]
)
def test_foreign_files_are_not_overwritten(raw: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "w" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}')
    for fresh in (False, True):
        with pytest.raises(UserError):
            prepare(raw, tmp_path / "w", fresh=fresh, on_case=draw)
        assert path.read_text() == '{"mine": 1}'


def test_a_second_writer_is_refused(raw: Path, tmp_path: Path) -> None:
    work = tmp_path / "w"
    code = (
        "import sys, time, pathlib; from semivox.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(work)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(UserError, match=rf"(?s)Another semivox command.*process {other.pid}"):
            prepare(raw, work)
        other.kill()
    prepare(raw, work)
    with locked(work):  # nothing to write: no need of the lock
        prepare(raw, work)


def test_a_class_without_a_training_voxel_is_told(
    raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declare(raw, ball=1, rare=2)
    save(raw / "labelsTr/b.nii.gz", label(value=2))
    one = load_config(**PATCH, split={"labeled": 1})
    for store in (False, True):
        caplog.clear()
        prepare(raw, tmp_path / str(store), store=store)
        assert "rare" not in caplog.text
        caplog.clear()
        prepare(raw, tmp_path / str(store), store=store, config=one)
        assert ("no voxel of rare" in caplog.text) == store
    caplog.clear()
    prepare(raw, tmp_path / "one", store=False, config=one)
    assert caplog.text.count("no voxel of rare in 1 labels") == 1


def test_a_scan_that_memory_cannot_hold_ends_alone(raw: Path, tmp_path: Path) -> None:
    work = tmp_path / "w"
    workspace, _, _ = prepare(raw, work)
    for path in list(work.glob("store/*.b2nd")):
        path.unlink()
    content = json.loads((work / "plans.json").read_text()) | {"spacing_mm": [1e-3, 1e-3, 1e-3]}
    (work / "plans.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"(?s)4 of 4 cases failed.*does not fit into this machine's memory"):
        prepare(raw, work)
    content["spacing_mm"] = [1, 1, 1]
    (work / "plans.json").write_text(json.dumps(content))
    save(raw / "imagesTr/c_0000.nii.gz", image(2), np.diag([2e7, 1, 1, 1]))
    with pytest.raises(UserError, match=r"(?s)does not fit.*c_0000\.nii\.gz"):
        prepare(raw, work)
    assert [workspace.store.has_image(name) for name in "abcd"] == [True, True, False, True]


def test_a_run_is_tied_to_its_data(raw: Path, tmp_path: Path) -> None:
    """The same run resumes with other workers, but not on a corrected label or another split."""
    work, run, config = tmp_path / "w", Run(tmp_path / "run"), load_config(**PATCH)
    workspace, split, plan = prepare(raw, work)

    def resume(asked: Config) -> Config:
        workspace, split, plan = prepare(raw, work, config=asked)
        return run.resume_config(asked, workspace.made_from(split, plan))

    run.start(config, workspace.made_from(split, plan))
    assert resume(config) == config
    fewer = load_config(split={"labeled": 1}, **PATCH)
    with pytest.raises(UserError, match=r"(?s)begun with other data.*b: labeled before, unlabeled now"):
        resume(fewer)
    save(raw / "labelsTr/a.nii.gz", label(6))
    with pytest.raises(
        UserError, match=r"(?s)begun with other data.*labelsTr/a\.nii\.gz has changed.*--fresh"
    ):
        resume(config)
    save(raw / "labelsTr/a.nii.gz", label())
    assert resume(config) == config
    add(raw, "e", 9)
    with pytest.raises(UserError, match="e: unused before, unlabeled now"):
        resume(config)
    run.manifest.remove()
    assert resume(config) == config
