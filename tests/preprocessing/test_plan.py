"""Fingerprint and plan: figures by hand, labels left alone, choices and their reasons, edited files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scans import Raw

from semivox.config import PlanConfig
from semivox.datasets.dataset import Dataset, open_dataset
from semivox.datasets.splits import Split
from semivox.errors import UserError
from semivox.preprocessing.fingerprint import CaseFingerprint, Fingerprint, fingerprint
from semivox.preprocessing.grids import CPU_VOXELS, whole_patch
from semivox.preprocessing.plan import Plan, load_plan, save_plan
from semivox.preprocessing.planner import make_plan

MISSING = "missing"
AUTO = PlanConfig.model_validate({})


def raw_of(root: Path, channels: Sequence[str] = ("MR",), labels: Sequence[str] = ("blob",)) -> Raw:
    return Raw(root, {name: value for value, name in enumerate(labels, start=1)}, channels)


def noise(seed: int = 0, shape: tuple[int, ...] = (6, 7, 8)) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def blob(shape: tuple[int, ...] = (6, 7, 8)) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[1:3, 2:5, 3:5] = 1
    return label


def case(
    shape: tuple[int, int, int] = (100, 100, 100),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    background: float = 0.0,
    inner: tuple[int, int, int] | None = None,
) -> CaseFingerprint:
    values = dict.fromkeys(("mean", "std", "p005", "p050", "p500", "p950", "p995"), 1.0)
    return CaseFingerprint("c", shape, spacing, background, inner or shape, (values,), None, None)


def plan_of(*cases: CaseFingerprint, config: dict[str, Any] | None = None) -> Plan:
    dataset = Dataset("D", Path(), ("MR",), ("background", "blob"), (0, 1), ())
    return make_plan(dataset, Fingerprint(cases, None), PlanConfig.model_validate(config or {}))


def planned(dataset: Dataset, split: Split, config: PlanConfig = AUTO) -> Plan:
    return make_plan(dataset, fingerprint(dataset, split), config)


def test_figures_of_a_scan_are_those_computed_by_hand(tmp_path: Path) -> None:
    raw = raw_of(tmp_path, labels=("small", "large", "absent"))
    image, label = noise(), np.zeros((6, 7, 8), np.uint8)
    image[0] = image.min()
    label[2, 2, :3], label[3:5, 3, :4] = 1, 2
    raw.add("a", image, label=label, affine=np.diag([0.5, 1.0, 3.0, 1.0]))
    measured = fingerprint(raw.open(), Split(labeled=("a",)))
    (found,) = measured.cases
    assert (found.shape, found.spacing_mm) == ((6, 7, 8), (0.5, 1.0, 3.0))
    assert found.background == pytest.approx(1 / 6, abs=1 / image.size + 1e-9)
    assert found.foreground_shape == (5, 7, 8)
    assert found.class_volumes_ml == pytest.approx({"small": 0.0045, "large": 0.012, "absent": 0.0})
    levels = np.percentile(image, [0.5, 5, 50, 95, 99.5])
    expected = [image.mean(dtype=float), image.std(dtype=float), *levels]
    assert list(found.channels[0].values()) == pytest.approx(expected)
    assert found.foreground is not None
    assert found.foreground[0]["mean"] == pytest.approx(image[label > 0].mean(dtype=float))


def test_foreground_is_pooled_over_labeled_cases(tmp_path: Path) -> None:
    raw = raw_of(tmp_path, channels=("CT", "PET"))
    for seed, name in enumerate("abc"):
        raw.add(name, noise(seed), noise(seed + 9) * 2, label=blob())
    plan = planned(raw.open(), Split(labeled=("a", "b"), unlabeled=("c",)))
    inside = blob() > 0
    for channel, arrays in enumerate([(noise(0), noise(1)), (noise(9) * 2, noise(10) * 2)]):
        values = np.concatenate([array[inside] for array in arrays]).astype(float)
        low, high = np.percentile(values, [0.5, 99.5])
        wanted = {"mean": values.mean(), "std": values.std(), "p005": low, "p995": high}
        assert plan.intensity[channel] == pytest.approx(wanted, rel=1e-5)
    assert plan.fingerprint["labeled_cases"] == ["a", "b"]


def test_percentiles_of_a_large_scan_are_close(tmp_path: Path) -> None:
    image = noise(shape=(110, 110, 110))
    raw = raw_of(tmp_path)
    raw.add("a", image, label=np.ones(image.shape, np.uint8))
    found = fingerprint(raw.open(), Split(labeled=("a",))).cases[0].channels[0]
    levels = np.percentile(image, [0.5, 5, 50, 95, 99.5])
    assert list(found.values())[2:] == pytest.approx(levels, abs=0.3)
    assert found["mean"] == pytest.approx(image.mean(dtype=float))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "ILA"])
def test_axes_are_those_of_the_canonical_grid(tmp_path: Path, codes: str) -> None:
    scan = nib.Nifti1Image(noise(), np.diag([1.0, 2.0, 3.0, 1.0]))
    to = nib.orientations.axcodes2ornt(codes)
    turned = scan.as_reoriented(nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), to))
    raw = raw_of(tmp_path)
    raw.add("a", np.asarray(turned.dataobj), label=np.ones(turned.shape, np.uint8), affine=turned.affine)
    found = fingerprint(raw.open(), Split(labeled=("a",))).cases[0]
    assert (found.shape, found.spacing_mm) == ((6, 7, 8), pytest.approx((1.0, 2.0, 3.0)))


def test_only_labels_of_labeled_cases_are_opened(tmp_path: Path) -> None:
    raw = raw_of(tmp_path)
    raw.add("a", noise(1), label=blob())
    for name in ("unlabeled", "val"):
        raw.add(name, noise(2), label=b"not a label")
    raw.add("extra", noise(3), pool="Un")
    raw.add("test", b"not an image", label=b"not a label", pool="Ts")
    dataset = raw.open()
    split = Split(labeled=("a",), unlabeled=("unlabeled", "extra"), val=("val",), test=("test",))
    seen: list[tuple[int, int, str]] = []
    measured = fingerprint(dataset, split, lambda done, total, name: seen.append((done, total, name)))
    assert [c.name for c in measured.cases if c.class_volumes_ml is not None] == ["a"]
    assert seen == [(1, 4, "a"), (2, 4, "unlabeled"), (3, 4, "extra"), (4, 4, "val")]
    with pytest.raises(UserError, match=r"labelsTr.val\.nii\.gz"):
        fingerprint(dataset, Split(labeled=("val",)))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    raw = raw_of(tmp_path)
    raw.add("a", noise(), label=blob())
    raw.add("b", b"\x1f\x8b broken")
    with pytest.raises(UserError, match=r"b_0000\.nii\.gz"):
        fingerprint(raw.open(), Split(labeled=("a",), unlabeled=("b",)))


def test_spacing_is_the_median_and_thick_slices_stay() -> None:
    plan = plan_of(*(case(spacing=(0.7, s, 5.0)) for s in (0.6, 0.7, 0.9)))
    assert plan.spacing_mm == (0.7, 0.7, 5.0)
    assert "7.1 times" in plan.reasons["spacing_mm"]
    assert "times" not in plan_of(case(spacing=(1, 1, 2))).reasons["spacing_mm"]


@pytest.mark.parametrize(
    ("name", "how"),
    [("CT", "ct"), ("ct", "ct"), ("CT_venous", "ct"), ("PET/CT", "ct"), ("CT 1", "ct"), ("T1", "zscore"),
     ("CBCT", "zscore"), ("direct", "zscore"), ("LGE-MR", "zscore"), ("T1CT", "zscore"), ("T1-CT", "zscore"),
     ("t1_ct", "zscore"), ("ct1", "zscore"), ("MRI (ct)", "zscore")],
)  # fmt: skip
def test_ct_is_recognised_as_a_word(tmp_path: Path, name: str, how: str) -> None:
    raw = raw_of(tmp_path, channels=(name, "MR"))
    raw.add("a", noise(), noise(1), label=blob())
    plan = planned(raw.open(), Split(labeled=("a",)))
    assert plan.normalisation == (how, "zscore")
    names = "MR" if how == "ct" else f"{name}, MR"
    assert f"{name}: CT by its name" in plan.reasons["normalisation"] or how == "zscore"
    assert f"{names}: no common unit" in plan.reasons["normalisation"]


def test_ct_without_labeled_foreground_falls_back_on_whole_scans(tmp_path: Path) -> None:
    raw = raw_of(tmp_path, channels=("CT",))
    raw.add("a", noise(), label=np.zeros((6, 7, 8), np.uint8))
    plan = planned(raw.open(), Split(labeled=("a",)))
    assert plan.intensity[0]["mean"] == pytest.approx(noise().mean(dtype=float))
    assert "no foreground" in plan.reasons["intensity"]


def test_crop_begins_where_a_typical_scan_is_a_quarter_background() -> None:
    inner = (50, 50, 50)
    some, much = case(background=0.24, inner=inner), case(background=0.26, inner=inner)
    assert plan_of(some, some, much).crop == "none"
    cropped = plan_of(some, much, much)
    assert cropped.crop == "foreground"
    assert "26%" in cropped.reasons["crop"]
    assert plan_of(some).patch == (64, 64, 64)
    assert cropped.patch == (48, 48, 48)


def test_patch_follows_the_scans_at_the_planned_spacing() -> None:
    scans = [case(shape=(200, 200, n), spacing=(1, 1, 2)) for n in (40, 50, 90)]
    plan = plan_of(*scans)
    assert (plan.patch, plan.strides[0]) == ((96, 96, 24), (2, 2, 1))
    assert "Holds 11% of a scan of median size" in plan.reasons["patch"]  # 221,184 of 2,000,000 voxels
    coarse = plan_of(*scans, config={"spacing_mm": (2, 2, 2)})
    assert (coarse.patch, coarse.reasons["spacing_mm"]) == ((80, 80, 40), "Given in the settings.")


def test_memory_bounds_the_patch_and_the_reason_says_how() -> None:
    """At 10 kB a voxel and 1 GB for the rest."""
    scan = case(shape=(200, 200, 50))
    small = plan_of(scan, config={"memory_gb": 2.2})
    assert 0.5 * 120_000 < np.prod(small.patch) <= 120_000
    assert small.memory_gb == 2.2 and "2.2 GB has room for 120000 features" in small.reasons["patch"]
    assert CPU_VOXELS < np.prod(plan_of(scan, config={"memory_gb": 40}).patch) <= 3_900_000


def test_tiny_and_huge_scans() -> None:
    tiny = plan_of(case(shape=(9, 20, 5)))
    assert tiny.patch == (10, 20, 5) and "Holds 100%" in tiny.reasons["patch"]
    huge = plan_of(case(shape=(1200, 1200, 2000), spacing=(0.2, 0.2, 0.2)))
    assert np.prod(huge.patch) <= CPU_VOXELS
    assert "a CPU has room for 262144 features. A coarser spacing_mm" in huge.reasons["patch"]
    slices = plan_of(case(shape=(320, 320, 12), spacing=(0.5, 0.5, 6.5)))
    assert slices.patch == (192, 192, 7) and slices.spacing_mm == (0.5, 0.5, 6.5)


def scaled(low: float, high: float, background: float) -> Plan:
    levels = {"mean": 1.0, "std": 1.0, "p005": low, "p995": high}
    return plan_of(replace(case(background=background), channels=(levels,)))


def test_channels_without_a_telling_name_are_judged_by_their_values() -> None:
    assert scaled(-1000, 800, 0.3).normalisation == ("ct",)
    assert "like Hounsfield units (-1000 to 800)" in scaled(-1000, 800, 0.3).reasons["normalisation"]
    assert scaled(-1000, 60_000, 0.0).normalisation == ("zscore",)
    assert scaled(-500, 800, 0.3).normalisation == ("zscore",)
    skull_stripped = scaled(0, 800, 0.6)
    assert skull_stripped.normalisation == ("zscore_nonzero",)
    assert "0 in 60% of a typical scan" in skull_stripped.reasons["normalisation"]
    assert scaled(0, 800, 0.2).normalisation == ("zscore",)
    assert scaled(3, 800, 0.6).normalisation == ("zscore",)


def test_workers_change_nothing(tmp_path: Path) -> None:
    raw = raw_of(tmp_path, channels=("MR", "T2"))
    for index, name in enumerate("abcd"):
        raw.add(name, noise(index), noise(index + 10), label=blob() if index < 3 else None)
    split, seen = Split(labeled=("c", "a"), unlabeled=("d", "b")), []
    alone = fingerprint(raw.open(), split)
    parallel = fingerprint(raw.open(), split, lambda done, total, name: seen.append((done, total)), workers=2)
    assert alone == parallel
    assert [measured.name for measured in alone.cases] == ["c", "a", "d", "b"]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(*[st.integers(1, 2000)] * 3), min_size=1, max_size=4), st.integers(16**3, 4_000_000)
)
def test_patches_fit_the_limit_and_the_network(shapes: list[tuple[int, int, int]], limit: int) -> None:
    patch, strides, share = whole_patch(np.array(shapes, float), (1, 1, 1), (2, 2, 1), limit)
    assert np.prod(patch) <= 4 * limit and 0 < share <= 1
    assert not np.mod(patch, np.prod(strides, axis=0) * (2, 2, 1)).any()
    median = np.median(shapes, axis=0)
    if np.prod(median + 16) <= limit:  # at most a quarter of a block is missing
        assert (np.divide(patch, (2, 2, 1)) >= 0.75 * median).all()


def test_overrides_win_and_the_reason_says_so() -> None:
    asked = {"spacing_mm": (2, 2, 4), "patch": (32, 32, 16), "normalisation": "none", "crop": "foreground"}
    plan, free = plan_of(case(), config=asked), plan_of(case())
    assert (plan.spacing_mm, plan.patch, plan.normalisation, plan.crop) == (
        (2, 2, 4), (32, 32, 16), ("none",), "foreground",
    )  # fmt: skip
    for key in asked:
        assert plan.reasons[key] == "Given in the settings."
        assert free.reasons[key] != plan.reasons[key]
    for reason in free.reasons.values():
        assert reason.endswith(".")


def test_a_saved_plan_is_readable_and_comes_back(tmp_path: Path) -> None:
    plan = plan_of(case())
    path = tmp_path / "plans.json"
    save_plan(plan, path)
    assert load_plan(path) == plan
    assert len(path.read_text().splitlines()) > 40
    edited = json.loads(path.read_text()) | {"patch": [64, 48, 32]}
    path.write_text(json.dumps(edited))
    assert load_plan(path).patch == (64, 48, 32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"patch": [64, 64, 41]}, "patch.*multiples of 16"),
        ({"patch": [64, 64]}, "patch"),
        ({"patch": [64, 64, "big"]}, "patch.2.*big"),
        ({"strides": [[2, 2, 3]]}, "strides.0.2.*less than or equal to 2"),
        ({"spacing_mm": [1, 0, 1]}, "spacing_mm.1.*greater than 0"),
        ({"normalisation": ["zscor"]}, "normalisation.*zscor"),
        ({"normalisation": ["ct", "ct"]}, "normalisation.*each channel"),
        ({"intensity": [{"mean": 1.0}]}, "intensity.*std"),
        ({"intensity": [{"mean": 1, "std": 1, "p005": 2, "p995": 1}]}, "p005 <= p995"),
        ({"class_values": [0, 0]}, "class_values.*different"),
        ({"crop": "label"}, "crop.*label"),
        ({"pach": [64, 64, 64]}, "did you mean patch"),
        ({"patch": None, "spacing_mm": None}, "spacing_mm"),
        ({"patch": MISSING}, "patch.*nothing"),
        ("[1, 2]", r"\[1, 2\]"),
        ("{", "JSON"),
    ],
)
def test_bad_edits_are_explained(tmp_path: Path, change: dict[str, Any] | str, text: str) -> None:
    path = tmp_path / "plans.json"
    if isinstance(change, dict):
        values = plan_of(case()).model_dump(mode="json") | change
        change = json.dumps({key: value for key, value in values.items() if value != MISSING})
    path.write_text(change)
    with pytest.raises(UserError, match=f"(?s){text}") as error:
        load_plan(path)
    assert error.value.path == path
    assert len(str(error.value)) < 500


def test_planning_and_preparing_start_without_torch_and_matplotlib() -> None:
    heavy = "{'torch', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, semivox.preprocessing.workspace; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("shape", "asked", "features"),
    [
        ((120, 90, 10), {}, 2.0),  # 60 x 45 x 10 features, 27,000, keep 0.992
        ((240, 180, 10), {}, 3.0),  # 108,000 do not count as few: 0.98 suffices
        ((240, 180, 10), {"memory_gb": 1.3}, 3.0),  # room for 30,000, which are a part of the scan
        ((120, 90, 10), {"fidelity": 0.975}, 3.0),
        ((240, 180, 10), {"fidelity": 0.99}, 2.0),
    ],
)
def test_a_small_patch_keeps_finer_features(
    shape: tuple[int, int, int], asked: dict[str, float], features: float
) -> None:
    kept = {"blob": [1.0, 0.999, 0.992, 0.98, 0.96, 0.9, 0.8]}  # at 1, 1.5, 2, 3, 4, 6 and 8 mm
    scan = replace(case(shape, (1.0, 1.0, 8.0)), fidelity=kept)
    plan = plan_of(scan, config=asked)
    chosen = next(row for row in plan.grids if row["chosen"])
    assert chosen["spacing_mm"] == [features, features, 8.0]
    assert plan.fidelity == (0.99 if features == 2.0 else 0.975)
    assert f"a Dice of {plan.fidelity}." in plan.reasons["spacing_mm"]


@pytest.mark.real
def test_real_scans_give_a_sensible_plan(real_data: Path) -> None:
    dataset = open_dataset(real_data / "hippocampus")
    names = [found.name for found in dataset.pool("train")][:12]
    plan = planned(dataset, Split(labeled=tuple(names[:4]), unlabeled=tuple(names[4:])))
    assert (plan.spacing_mm, plan.crop, plan.normalisation) == ((1.0, 1.0, 1.0), "none", ("zscore",))
    assert (plan.patch, plan.stem, plan.one_piece) == ((40, 48, 40), (1, 1, 1), (True, True))
    for volume in plan.fingerprint["class_volumes_ml"].values():
        assert 0.5 < volume["min"] <= volume["max"] < 4
    dataset = open_dataset(real_data / "la2018")
    names = [found.name for found in dataset.pool("train")][:3]
    split = Split(labeled=tuple(names))
    plan = planned(dataset, split)
    assert (plan.spacing_mm, plan.stem, plan.crop) == ((1.25, 1.25, 1.25), (2, 2, 2), "none")
    assert 0.975 <= next(row["fidelity"]["left_atrium"] for row in plan.grids if row["chosen"]) < 0.99
    assert plan.patch[1:] == (80, 48) and plan.one_piece == (True,)
    plan = planned(dataset, split, PlanConfig(grid="source"))
    assert (plan.spacing_mm, plan.stem, plan.grids) == ((0.625, 0.625, 0.625), (1, 1, 1), ())
    assert 0.7 * CPU_VOXELS < np.prod(plan.patch) <= CPU_VOXELS
    assert 20 < plan.fingerprint["class_volumes_ml"]["left_atrium"]["median"] < 200
