"""Folders of files: the table, the summary, failures, messages."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

import semivox
from semivox.config import SplitConfig
from semivox.datasets.dataset import open_dataset
from semivox.datasets.declared import Classes, parse_regions, read_regions
from semivox.datasets.splits import make_split, save_splits
from semivox.errors import UserError
from semivox.evaluation.evaluate import evaluate_folder
from semivox.evaluation.metrics import case_metrics
from semivox.evaluation.references import case_files
from semivox.evaluation.summary import read_metrics, summarise

NAMES, VALUES = ("background", "NA", "tumour"), (0, 1, 4)
CLASSES = Classes(NAMES, VALUES)
AFFINE = np.diag([0.5, 0.5, 2.0, 1.0])


def save(path: Path, label: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(label, affine), path)
    return path


def write_nrrd(label: np.ndarray, path: Path) -> None:
    """Write on the grid of `save`, in ITK's world."""
    image = sitk.GetImageFromArray(label.T)
    image.SetSpacing(AFFINE.diagonal()[:3].tolist())
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """Four cases: good with an island, tumour missed, no file, no tumour anywhere."""
    references = {}
    for name in ("007", "b", "c", "d"):
        label = np.zeros((12, 10, 8), np.uint8)
        label[2:9, 2:8, 2:6] = 1
        if name != "d":
            label[4:7, 4:7, 3:5] = 4
        references[name] = save(tmp_path / "references" / f"{name}.nii.gz", label)
        found = np.roll(label, 1, axis=0)
        found[11, 9, 7] = 1
        if name == "b":
            found[found == 4] = 1
        if name != "c":
            save(tmp_path / "predictions" / f"{name}.nii.gz", found)
    save(tmp_path / "predictions" / "without_reference.nii.gz", found)
    return tmp_path / "predictions", references


def test_table_has_a_row_a_case_and_class(folders: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    table = evaluate_folder(*folders, CLASSES, tmp_path, workers=0, progress=lambda *step: steps.append(step))
    assert table["case"].tolist() == [name for name in folders[1] for _ in range(2)]
    assert table["class"].tolist() == ["NA", "tumour"] * 4
    assert table["value"].tolist() == [1, 4] * 4
    assert table["status"].tolist() == ["ok", "ok", "ok", "missed", "missing", "missing", "ok", "absent"]
    assert steps == [(1, 4, "007"), (2, 4, "b"), (3, 4, "c"), (4, 4, "d")]
    pair = (folders[0] / "007.nii.gz", folders[1]["007"])
    labels = [(np.asarray(nib.load(path).dataobj) == 1).astype(int) for path in pair]
    expected = case_metrics(*labels, 2, (0.5, 0.5, 2), lcc=True)
    for name in ("dice", "hd95_mm", "asd_vox", "nsd", "dice_lcc", "volume_pred_ml_lcc"):
        assert table.loc[0, name] == pytest.approx(expected[0][name]), name


def test_regions_are_scored_beside_the_classes(folders: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    plain = evaluate_folder(*folders, CLASSES, tmp_path / "plain", workers=0)
    regions = {"all": (1, 4)}
    table = evaluate_folder(*folders, Classes(NAMES, VALUES, regions=regions), tmp_path, workers=0)
    assert table["class"].tolist() == ["NA", "tumour", "all"] * 4
    classes = table[table["class"] != "all"].reset_index(drop=True)
    pd.testing.assert_frame_equal(classes, plain, check_dtype=False)
    unions = table[table["class"] == "all"].set_index("case")
    assert unions["status"].to_dict() == {"007": "ok", "b": "ok", "c": "missing", "d": "ok"}
    for case in ("007", "b", "d"):
        pair = (folders[0] / f"{case}.nii.gz", folders[1][case])
        found, true = (np.asarray(nib.load(path).dataobj) > 0 for path in pair)
        expected = 2 * (found & true).sum() / (found.sum() + true.sum())
        assert unions.loc[case, "dice"] == pytest.approx(expected)
    files = (tmp_path / "plain" / "summary.json", tmp_path / "summary.json")
    first, second = (json.loads(path.read_text()) for path in files)
    assert first["foreground_mean"] == second["foreground_mean"]
    assert second["mean"]["(1, 4)"]["Dice"] == pytest.approx(unions["dice"].mean())
    assert list(first["mean"]) == list(second["mean"])[:2]
    again = read_metrics(tmp_path / "metrics.csv")
    rows = [summarise(one).query("`class` == 'mean'").reset_index(drop=True) for one in (plain, again)]
    pd.testing.assert_frame_equal(*rows)


@pytest.mark.parametrize(
    "regions", [{"NA": [1]}, {"all": [1, 3]}, {"all": []}, {"all": [0, 1]}, {"all": 4}, [1]]
)
def test_regions_that_cannot_be(regions: object) -> None:
    with pytest.raises(UserError, match="region cannot be used") as error:
        read_regions(regions, NAMES, VALUES, Path("dataset.json"))
    assert "1, 4" in str(error.value.expected)


def test_regions_of_the_command_line() -> None:
    assert parse_regions(["all=1,4", "core = 4"]) == {"all": [1, 4], "core": [4]}
    assert parse_regions([]) is None
    for wrong in (["all=one"], ["all=1", "all=4"]):
        with pytest.raises(UserError, match="malformed"):
            parse_regions(wrong)


def test_workers_and_files_change_nothing(folders: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    here = evaluate_folder(*folders, CLASSES, tmp_path / "a", workers=0)
    there = evaluate_folder(*folders, CLASSES, tmp_path / "b", workers=2)
    pd.testing.assert_frame_equal(here, there)
    pd.testing.assert_frame_equal(here, read_metrics(tmp_path / "a" / "metrics.csv"), check_exact=True)
    assert (tmp_path / "a" / "metrics.csv").read_bytes() == (tmp_path / "b" / "metrics.csv").read_bytes()


def test_summary_has_the_shape_of_nnunet(folders: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    table = evaluate_folder(*folders, CLASSES, tmp_path, workers=0, nsd_tolerance_mm=2)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == ["foreground_mean", "mean", "metric_per_case", "semivox"]
    assert list(summary["mean"]) == ["1", "4"]
    first = summary["metric_per_case"][0]
    assert first["prediction_file"] == str(folders[0] / "007.nii.gz")
    assert first["reference_file"] == str(folders[1]["007"])
    theirs = first["metrics"]["4"]
    assert {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"} < set(theirs)
    assert theirs["TP"] == 2 * 3 * 2
    assert theirs["n_ref"] == theirs["n_pred"] == theirs["TP"] + theirs["FN"] == 18
    assert theirs["Dice"] == pytest.approx(2 / 3)
    assert theirs["IoU"] == pytest.approx(1 / 2)
    assert summary["metric_per_case"][2]["prediction_file"] is None
    assert summary["metric_per_case"][3]["metrics"]["4"]["Dice"] is None

    tumour = table.query("`class` == 'tumour'")["dice"]
    assert summary["mean"]["4"]["Dice"] == pytest.approx(tumour.mean())
    per_case = table.groupby("case")["dice"].mean()
    assert summary["foreground_mean"]["Dice"] == pytest.approx(per_case.mean())

    ours = summary["semivox"]
    assert ours["statuses"] == {"ok": 4, "missed": 1, "missing": 2, "absent": 1}
    assert (ours["cases"], ours["profile"], ours["nsd_tolerance_mm"]) == (4, "semivox", 2)
    dice = ours["summary"]["tumour"]["dice"]
    assert (dice["n"], dice["failures"]) == (3, 2)
    assert dice["low"] <= dice["mean"] <= dice["high"]
    assert ours["summary"]["tumour"]["hd95_mm"]["n"] == 1
    assert ours["summary"]["tumour"]["hd95_mm"]["low"] is None
    assert ours["summary"]["mean"]["dice_lcc"]["n"] == 4


def test_published_profile(folders: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    table = evaluate_folder(*folders, CLASSES, tmp_path, workers=0, profile="published", lcc=False)
    assert table["zeroed"].tolist() == [False, False, False, True, True, True, False, True]
    assert table.loc[3, "hd95_vox"] == table.loc[7, "dice"] == 0
    assert not [name for name in table if "lcc" in name or "hd95_mm" in name]
    pd.testing.assert_frame_equal(table, read_metrics(tmp_path / "metrics.csv"))
    assert json.loads((tmp_path / "summary.json").read_text())["semivox"]["profile"] == "published"


@pytest.mark.parametrize("workers", [0, 2])
def test_cases_that_cannot_be_scored_are_named_and_the_others_scored(
    folders: tuple[Path, dict[str, Path]], tmp_path: Path, workers: int
) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] = 5
    save(folders[0] / "007.nii.gz", np.zeros((12, 10, 8), np.uint8), shifted)
    save(folders[0] / "b.nii.gz", np.zeros((12, 10, 9), np.uint8))
    with pytest.raises(UserError, match=r"2 of 4 cases failed \(scoring\); the scores of the other") as error:
        evaluate_folder(*folders, CLASSES, tmp_path / "out", workers=workers)
    for part in (
        r"007: The affine differs from that of its reference \S+references/007\.nii\.gz",
        r"b: The shape differs from that of its reference \S+ \(12, 10, 9\) \(\S+b\.nii\.gz\)",
    ):
        assert re.search(part, str(error.value)), part
    assert read_metrics(tmp_path / "out" / "metrics.csv")["case"].tolist() == ["c", "c", "d", "d"]
    ours = json.loads((tmp_path / "out" / "summary.json").read_text())["semivox"]
    assert (ours["cases"], ours["failed"]) == (2, ["007", "b"])
    alone = {name: folders[1][name] for name in ("007", "b")}
    with pytest.raises(UserError, match="2 of 2 cases"):
        evaluate_folder(folders[0], alone, CLASSES, tmp_path / "none", workers=0)
    with pytest.raises(UserError, match="trust-image-geometry"):
        evaluate_folder(folders[0], {"007": alone["007"]}, CLASSES, tmp_path / "none", workers=0)
    assert not (tmp_path / "none").exists()


def test_files_are_matched_by_case_whatever_their_ending(tmp_path: Path) -> None:
    """Hidden files are no files; what is left over on either side is named and counted."""
    found, truth = tmp_path / "pred", tmp_path / "ref"
    label = np.zeros((6, 6, 6), np.uint8)
    label[1:4, 1:4, 1:4], label[5, 5, 5] = 1, 9
    for name in ("a.nii.gz", "b.nii", "c.NII.GZ", "e.nii.gz"):
        save(truth / "x.nii.gz", label).rename(truth / name) if "NII" in name else save(truth / name, label)
    write_nrrd(label, truth / "d.nrrd")
    write_nrrd(label % 9, found / "a.mha")
    for name in ("b.nii.gz", "c.nii", "d.nii.gz", "surplus.nii.gz"):
        save(found / name, label % 9)
    (truth / "._a.nii.gz").write_bytes(b"\0\5\x16\7Mac OS X")
    (truth / "read.me").write_text("no label")
    (found / "semivox.json").write_text(json.dumps({"labels": {"background": 0, "c1": 1}}))
    with pytest.raises(UserError, match="5 cases failed") as error:
        semivox.evaluate(found, references=truth, workers=0)
    assert "9 (1 voxels)" in str(error.value)
    table = semivox.evaluate(found, references=truth, workers=0, ignore=9)
    assert table.set_index("case")["dice"].to_dict() == {"a": 1, "b": 1, "c": 1, "d": 1, "e": 0}
    assert table["tn"].tolist()[:4] == [216 - 27] * 4
    assert table.attrs == {"missing": ["e"], "without_reference": ["surplus"]}
    ours = json.loads((found / "summary.json").read_text())["semivox"]
    assert (ours["missing"], ours["without_reference"], ours["cases"]) == (["e"], ["surplus"], 5)
    with pytest.raises(UserError, match="is that of a class"):
        semivox.evaluate(found, references=truth, workers=0, ignore=1)
    save(truth / "b.nii.gz", label)
    with pytest.raises(UserError, match=r"b\.nii and b\.nii\.gz"):
        semivox.evaluate(found, references=truth, workers=0, ignore=9)


@pytest.mark.parametrize("place", ["ref", "."])
def test_classes_and_the_value_to_ignore_are_read_beside_the_references(tmp_path: Path, place: str) -> None:
    label = np.zeros((6, 6, 6), np.uint8)
    label[1:4, 1:4, 1:4], label[5, 5, 5] = 1, 3
    save(tmp_path / "ref" / "a.nii.gz", label), save(tmp_path / "pred" / "a.nii.gz", label % 3)
    with pytest.raises(UserError, match="classes are not known"):
        semivox.evaluate(tmp_path / "pred", references=tmp_path / "ref", workers=0)
    labels = {"background": 0, "organ": 1, "ignore": 3}
    (tmp_path / place / "dataset.json").write_text(json.dumps({"labels": labels}))
    table = semivox.evaluate(tmp_path / "pred", references=tmp_path / "ref", workers=0)
    assert table[["class", "dice"]].values.tolist() == [["organ", 1.0]]
    for meta in (
        {"labels": labels, "regions": {"all": [1]}},
        {"labels": {**labels, "tip": 2, "all": [1, 2]}},
    ):
        (tmp_path / place / "dataset.json").write_text(json.dumps(meta))
        table = semivox.evaluate(tmp_path / "pred", references=tmp_path / "ref", workers=0)
        assert table["class"].tolist()[-1] == "all" and table["dice"].tolist()[-1] == 1.0


def test_wrong_folder_is_an_error_not_a_zero(folders: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"007\.nii\.gz"):
        evaluate_folder(tmp_path / "nowhere", folders[1], CLASSES, tmp_path, workers=0)
    with pytest.raises(UserError, match="no reference"):
        evaluate_folder(folders[0], {}, CLASSES, tmp_path, workers=0)


def test_scores_of_another_tool_are_not_overwritten(
    folders: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    """`nnUNetv2_evaluate_folder` writes a `summary.json` beside the predictions."""
    predictions, references = folders
    for name, content in (("summary.json", "{}"), ("metrics.csv", "epoch,loss\n1,0.5\n")):
        path = tmp_path / "scores" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        with pytest.raises(UserError):
            evaluate_folder(predictions, references, CLASSES, path.parent, workers=0)
        assert path.read_text() == content and len(list(path.parent.iterdir())) == 1
        path.unlink()


def test_folders_and_splits_that_do_not_tell_what_to_score(
    folders: tuple[Path, dict[str, Path]], phantoms: Path, tmp_path: Path
) -> None:
    predictions, nowhere = folders[0], tmp_path / "nowhere"
    for wrong in ((nowhere, predictions), (predictions, nowhere)):
        with pytest.raises(UserError, match="no such folder") as error:
            semivox.evaluate(wrong[0], references=wrong[1])
        assert error.value.path == nowhere
    with pytest.raises(UserError, match="--split-file RUN"):
        semivox.evaluate(predictions, data=phantoms, cases="val")
    split = make_split(open_dataset(phantoms), SplitConfig(labeled=2, val=1))
    save_splits(tmp_path / "folds.json", [split, split])
    with pytest.raises(UserError, match="several folds"):
        semivox.evaluate(predictions, data=phantoms, cases="val", split_file=tmp_path / "folds.json")


def test_tables_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_metrics(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("iteration,loss\n1,0.5\n")
    with pytest.raises(UserError, match="no column case, class, status, profile, dice"):
        read_metrics(tmp_path / "other.csv")


@pytest.mark.real
def test_real_hippocampi_with_float_labels(real_data: Path, tmp_path: Path) -> None:
    """References against themselves are perfect, and as large as hippocampi are."""
    folder = real_data / "hippocampus" / "labelsTs"
    references = {path.name.removesuffix(".nii.gz"): path for path in sorted(folder.glob("*.nii.gz"))[:6]}
    classes = Classes(("background", "anterior", "posterior"), (0, 1, 2))
    table = evaluate_folder(folder, references, classes, tmp_path, workers=0)
    assert len(table) == 12
    assert (table["dice"] == 1).all() and (table["hd95_mm"] == 0).all() and (table["nsd"] == 1).all()
    assert table["volume_ref_ml"].between(0.5, 4).all()
    assert not math.isnan(table["hd95_mm_penalised_lcc"].max())


def test_maps_of_the_uncertainty_are_no_predictions(tmp_path):
    for name in ("a", "a_uncertainty", "a_disagreement", "b_uncertainty"):  # the last is a case of its own
        (tmp_path / f"{name}.nii.gz").touch()
    assert list(case_files(tmp_path)) == ["a", "b_uncertainty"]
