"""Recipes on miniature trees with the official names and layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from semivox.config import SplitConfig, load_config, preset_names
from semivox.datasets.dataset import Dataset
from semivox.datasets.importers.bring_in import import_dataset
from semivox.datasets.importers.crops import clip_level, margins, orient_label
from semivox.datasets.importers.published import read_recipe
from semivox.datasets.splits import make_split
from semivox.errors import UserError
from semivox.io.volume import Volume, read_image

pytest.importorskip("pydicom", reason="needs the extra dicom")
from dicom_writer import write_series

RNG = np.random.default_rng
LA = ("06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX")
LA_TEST = read_recipe("la2018").splits["ua-mt"].test[0]


def run_recipe(kind: Any, raw: Path, out: Path, **options: Any) -> Dataset:
    return import_dataset(raw, out, kind=kind, **options)


def stored(dataset: Dataset, name: str) -> tuple[Volume, np.ndarray]:
    case = dataset.case(name)
    assert case.label is not None
    return read_image(case.images), np.asarray(nib.load(case.label).dataobj)


def record(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "import.json").read_text()))


def h5(path: Path, image: np.ndarray, label: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["image"], file["label"] = image, label


# --- published lists -------------------------------------------------------------------------------


def test_lists_are_disjoint_and_of_the_published_sizes() -> None:
    sizes = {}
    for recipe in ("la2018", "pancreas-ct", "brats2019"):
        for name, split in read_recipe(recipe).splits.items():
            everything = [*split.train, *split.val, *split.test]
            assert len(set(everything)) == len(everything)
            assert len(split.origin) > 40
            sizes[name] = (len(split.train), len(split.val), len(split.test))
    assert sizes == {
        "ua-mt": (80, 0, 20), "mcf-0": (62, 0, 20), "mc-net": (62, 0, 20), "coranet": (62, 0, 18),
        "ssl4mis": (250, 25, 60), "mcf-1": (62, 0, 20), "mcf-2": (61, 0, 21), "mcf-3": (61, 0, 21),
        "mcf-4": (80, 0, 20),
    }  # fmt: skip


def test_the_three_pancreas_splits_do_not_agree() -> None:
    splits = read_recipe("pancreas-ct").splits
    assert splits["mcf-0"].train[:2] == ("PANCREAS_0001", "PANCREAS_0002")
    assert splits["mc-net"].train[:2] == ("PANCREAS_0057", "PANCREAS_0018")
    tests = [set(splits[name].test) for name in ("mcf-0", "mc-net", "coranet")]
    assert len(tests[0] & tests[1]) < 10
    assert not {"PANCREAS_0025", "PANCREAS_0070"} & {*splits["coranet"].train, *tests[2]}


@pytest.mark.real
def test_lists_equal_those_of_the_published_code(real_data: Path) -> None:
    lists = real_data / "splits"
    la = read_recipe("la2018").splits["ua-mt"]
    assert list(la.train) == (lists / "BCP/data_split/LA/train.list").read_text().split()
    assert list(la.test) == (lists / "BCP/data_split/LA/test.list").read_text().split()
    brats = read_recipe("brats2019").splits["ssl4mis"]
    for role in ("train", "val", "test"):
        expected = (lists / f"SSL4MIS/data/BraTS2019/{role}.txt").read_text().split()
        assert list(getattr(brats, role)) == expected
    pancreas = read_recipe("pancreas-ct").splits
    folds = lists / "MCF/dataset/Pancreas/Flods"
    for fold in range(4):
        for role in ("train", "test"):
            expected = (folds / f"{role}{fold}.list").read_text().replace(".h5", "").split()
            assert list(getattr(pancreas[f"mcf-{fold}"], role)) == expected
    expected = (lists / "MC-Net/data/Pancreas/test.list").read_text().replace("image", "PANCREAS_").split()
    assert list(pancreas["mc-net"].test) == expected


@pytest.mark.parametrize("name", ["la-12", "la-20", "pancreas-6", "pancreas-12", "brats-25", "brats-50"])
def test_presets(name: str) -> None:
    assert name in preset_names()
    config = load_config(preset=name)
    assert config.split.labeled == int(name.partition("-")[2])
    assert config.plan.normalisation == "none"
    assert config.train.iterations == (20000 if name.startswith("brats") else 6000)
    beta, alpha = {"la": (None, None), "pancreas": (0.6, 80), "brats": (None, 30)}[name.partition("-")[0]]
    assert (config.method.options.get("beta"), config.method.options.get("alpha")) == (beta, alpha)


# --- left atrium -----------------------------------------------------------------------------------


def atrium(seed: int, shape: tuple[int, int, int] = (150, 140, 12)) -> tuple[np.ndarray, np.ndarray]:
    """A scan, and a label from 40..99 along X and 30..79 along Y."""
    label = np.zeros(shape, np.uint8)
    label[40:100, 30:80, 3:9] = 255
    return RNG(seed).integers(0, 200, shape).astype(np.uint8), label


def la_tree(raw: Path, names: tuple[str, ...] = (*LA, LA_TEST)) -> Path:
    for seed, name in enumerate(names):
        folder = raw / ("Testing Set" if name == LA_TEST else "Training Set") / name
        folder.mkdir(parents=True)
        for file, array in zip(("lgemri.nrrd", "laendo.nrrd"), atrium(seed), strict=True):
            image = sitk.GetImageFromArray(array.T)
            image.SetSpacing((0.625, 0.625, 1.25))
            image.SetOrigin((1, 2, 3))
            sitk.WriteImage(image, str(folder / file))
    return raw


def test_la_whole_scans(tmp_path: Path) -> None:
    raw = la_tree(tmp_path / "raw")
    (raw / "Testing Set" / "ZZZ").mkdir()
    (raw / "Testing Set" / "ZZZ" / "lgemri.nrrd").write_bytes(
        (raw / "Training Set" / LA[0] / "lgemri.nrrd").read_bytes()
    )
    (raw / "Training Set" / LA[2] / "laendo.nrrd").unlink()
    (raw / "Training Set" / "odd").mkdir()
    (raw / "Training Set" / "odd" / "laendo.nrrd").touch()
    dataset = run_recipe("la2018", raw, tmp_path / "out")
    assert [case.name for case in dataset.pool("train")] == list(LA)
    assert [case.name for case in dataset.pool("test")] == [LA_TEST]
    image, label = stored(dataset, LA[1])
    np.testing.assert_array_equal(image.array[0], atrium(1)[0])
    np.testing.assert_array_equal(label, atrium(1)[1] // 255)
    expected = [[-0.625, 0, 0, -1], [0, -0.625, 0, -2], [0, 0, 1.25, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(image.affine, expected)
    facts = record(tmp_path / "out")
    assert len(facts["missing"]) == 96 and LA[0] not in facts["missing"]  # type: ignore[arg-type, operator]
    assert facts["extra"] == ["ZZZ"]
    assert facts["unlabeled"] == [LA[2]]
    assert facts["unknown"] == ["laendo.nrrd (label of odd, without a scan)"]
    notes = " ".join(facts["notes"])  # type: ignore[arg-type]
    assert "96 of 100 published cases are missing" in notes and "ZZZ" in notes
    assert "plan.normalisation=zscore" in str(facts["prepare"])


def test_la_published_crop(tmp_path: Path) -> None:
    """The crop by hand: X 60 labeled voxels, (112 - 59) // 2 = 26 more on both sides, and 10..19 beyond."""
    raw = la_tree(tmp_path / "raw")
    dataset = run_recipe("la2018", raw, tmp_path / "out", crop="published")
    sizes = set()
    for seed, name in enumerate(LA):
        image, label = stored(dataset, name)
        scan, mask = atrium(seed)
        start = np.linalg.solve(image.affine, [-1, -2, 3, 1])[:3] * -1
        x, y, z = np.rint(start).astype(int)
        margin = margins(name)
        assert margin.min() >= 10 and margin.max() <= 19
        size = image.array.shape[1:]
        assert (x, y, z) == (max(40 - 26 - margin[0, 0], 0), 0, 0)
        assert (x + size[0], y + size[1]) == (99 + 26 + margin[1, 0], 79 + 31 + margin[1, 1])
        assert size[2] == 12
        box = (slice(x, x + size[0]), slice(y, y + size[1]))
        expected = (scan - scan.mean()) / scan.std()
        np.testing.assert_allclose(image.array[0], expected[box], atol=1e-5)
        np.testing.assert_array_equal(label, mask[box] // 255)
        sizes.add(size)
    assert len(sizes) > 1
    again = run_recipe("la2018", raw, tmp_path / "again", crop="published")
    np.testing.assert_array_equal(stored(again, LA[0])[0].array, stored(dataset, LA[0])[0].array)
    assert "labels of all cases" in record(tmp_path / "out")["notes"][0]  # type: ignore[index]
    assert record(tmp_path / "out")["prepare"] == " --preset la-8"


def test_la_wrong_label_values_and_empty_folders(tmp_path: Path) -> None:
    raw = la_tree(tmp_path / "raw", LA[:1])
    path = raw / "Training Set" / LA[0] / "laendo.nrrd"
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(path)) / 255 * 3, sitk.sitkUInt8), str(path))
    with pytest.raises(UserError, match="does not have") as error:
        run_recipe("la2018", raw, tmp_path / "out")
    assert error.value.path == path
    assert "3 (" in str(error.value.found)
    (tmp_path / "empty").mkdir()
    for recipe in ("la2018", "pancreas-ct", "brats2019"):
        with pytest.raises(UserError, match="None of the published cases"):
            run_recipe(recipe, tmp_path / "empty", tmp_path / "out")
        with pytest.raises(UserError, match=f"Unknown split of {recipe}"):
            run_recipe(recipe, tmp_path / "empty", tmp_path / "out", split="ua-mtt")
    with pytest.raises(UserError, match="without a meaning here") as error:
        run_recipe("la2018", raw, tmp_path / "out", series="T1")
    assert error.value.found == "series"


# --- BraTS -----------------------------------------------------------------------------------------

GLIOMA = read_recipe("brats2019").splits["ssl4mis"]


def brats_tree(raw: Path, names: tuple[str, ...]) -> Path:
    for seed, name in enumerate(names):
        folder = raw / ("HGG" if seed % 2 else "LGG") / name
        folder.mkdir(parents=True)
        head = np.zeros((16, 14, 12), np.int16)
        head[2:14, 3:12, 1:11] = 1
        for index, sequence in enumerate(("flair", "t1", "t1ce", "t2")):
            voxels = head * RNG(seed * 10 + index).integers(50, 900, head.shape).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 1, 1])), folder / f"{name}_{sequence}.nii.gz")
        seg = head * np.array([0, 1, 2, 4], np.int16)[RNG(seed).integers(0, 4, head.shape)]
        nib.save(nib.Nifti1Image(seg, np.diag([-1, -1, 1, 1])), folder / f"{name}_seg.nii.gz")
    return raw


def test_brats_order_validation_and_whole_tumor(tmp_path: Path) -> None:
    names = (*GLIOMA.train[:3], GLIOMA.val[0], GLIOMA.test[0])
    raw = brats_tree(tmp_path / "raw", names)
    dataset = run_recipe("brats2019", raw, tmp_path / "out")
    assert dataset.order == names[:4]
    split = make_split(dataset, SplitConfig(labeled=2, val=1))
    assert (split.labeled, split.unlabeled, split.val, split.test) == (
        names[:2], names[2:3], names[3:4], names[4:],
    )  # fmt: skip
    image, label = stored(dataset, names[1])
    folder = raw / "HGG" / names[1]
    flair = np.asarray(nib.load(folder / f"{names[1]}_flair.nii.gz").dataobj)
    np.testing.assert_array_equal(image.array[0], flair)
    np.testing.assert_array_equal(image.affine, np.diag([-1, -1, 1, 1]))
    seg = np.asarray(nib.load(folder / f"{names[1]}_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(label, seg > 0)
    assert dataset.class_names == ("background", "whole_tumor")


def test_brats_published_form_by_hand(tmp_path: Path) -> None:
    """Box 2..12 x 3..10 x 1..9 (a voxel less than the head at its end), clip, z-score of what is above 0."""
    raw = brats_tree(tmp_path / "raw", GLIOMA.train[:1])
    dataset = run_recipe("brats2019", raw, tmp_path / "out", crop="published")
    image, label = stored(dataset, GLIOMA.train[0])
    folder = raw / "LGG" / GLIOMA.train[0]
    box = (slice(2, 13), slice(3, 11), slice(1, 10))
    flair = np.asarray(nib.load(next(folder.glob("*_flair.nii.gz"))).dataobj, np.float64)[box]
    flair = np.minimum(flair, clip_level(flair))
    inside = flair[flair > 0]
    np.testing.assert_allclose(image.array[0], (flair - inside.mean()) / inside.std(), atol=1e-5)
    np.testing.assert_array_equal(
        label, np.asarray(nib.load(next(folder.glob("*_seg.nii.gz"))).dataobj)[box] > 0
    )
    np.testing.assert_allclose(image.affine[:3, 3], [-2, -3, 1])


def test_clip_level_by_hand() -> None:
    """0..255 in bins of width 255 / 256: 1000 values of 0 and one of 255; 999 / 1001 of them reach 99.8 %."""
    assert clip_level(np.array([0.0] * 1000 + [255.0])) == pytest.approx(255 / 256 / 2)
    assert clip_level(np.array([0.0] * 900 + [255.0])) == pytest.approx(255 - 255 / 256 / 2)


def test_brats_wrong_values(tmp_path: Path) -> None:
    raw = brats_tree(tmp_path / "raw", GLIOMA.train[:1])
    path = next(raw.rglob("*_seg.nii.gz"))
    seg = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(seg.dataobj) + 1, seg.affine), path)
    with pytest.raises(UserError, match="does not have") as error:
        run_recipe("brats2019", raw, tmp_path / "out")
    assert error.value.path == path


# --- pancreas --------------------------------------------------------------------------------------


def abdomen(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """CT in HU (40, 36, 30): fat with organs, and a bent organ of its own in a corner, without symmetry."""
    rng = RNG(seed)
    ct = np.full((40, 36, 30), -90) + rng.integers(-15, 16, (40, 36, 30))
    ct[22:38, 4:16, 3:28] = 60 + rng.integers(-15, 16, (16, 12, 25))  # a large organ: no contrast inside it
    label = np.zeros(ct.shape, np.uint8)
    label[6:14, 20:26, 8:12] = 1
    label[6:9, 26:31, 8:18] = 1
    ct[label == 1] = 90 + rng.integers(-15, 16, int(label.sum()))
    ct[:, :2] = -1000
    return ct, label


def pancreas_tree(raw: Path, numbers: tuple[int, ...], header: str = "flipped") -> Path:
    """Scans as TCIA stores them; labels with Y reversed in the file and a header that does not say so."""
    labels = raw / "TCIA_pancreas_labels-02-05-2017"
    labels.mkdir(parents=True)
    for number in numbers:
        ct, label = abdomen(number)
        name = f"PANCREAS_{number:04d}"
        write_series(raw / "Pancreas-CT" / name / "11-24-2015-X" / f"{name}-1", ct, spacing=(0.8, 0.8, 1.0))
        affine = np.diag([-0.8, -0.8, 1.0, 1.0] if header == "flipped" else [-0.8, 0.8, 1.0, 1.0])
        nib.save(nib.Nifti1Image(label[:, ::-1], affine), labels / f"label{number:04d}.nii.gz")
    return raw


@pytest.mark.parametrize("header", ["flipped", "right"])
def test_pancreas_labels_are_laid_by_content(tmp_path: Path, header: str) -> None:
    raw = pancreas_tree(tmp_path / "raw", (1, 64), header)
    dataset = run_recipe("pancreas-ct", raw, tmp_path / "out")
    assert [(case.name, case.pool) for case in dataset.cases] == [
        ("PANCREAS_0064", "test"), ("PANCREAS_0001", "train"),
    ]  # fmt: skip
    image, label = stored(dataset, "PANCREAS_0001")
    ct, truth = abdomen(1)
    np.testing.assert_array_equal(image.array[0], np.clip(ct, -120, 240))
    np.testing.assert_array_equal(label, truth)
    np.testing.assert_allclose(image.affine[:3, :3], np.diag([-0.8, -0.8, 1.0]), atol=1e-6)
    how = record(tmp_path / "out")["cases"]["PANCREAS_0001"]["orientation"]  # type: ignore[index]
    source = "content, against its header" if header == "flipped" else "header and content"
    assert how == f"Y flipped (by {source})"
    other = run_recipe("pancreas-ct", raw, tmp_path / "other", split="mc-net")
    assert other.case("PANCREAS_0064").pool == "train"


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_any_orientation_is_found(swap: bool, flips: tuple[int, int, int]) -> None:
    ct, truth = abdomen(3)
    ct, truth = ct[:36], truth[:36]
    array = truth[:: flips[0], :: flips[1], :: flips[2]]
    label = Volume(array.swapaxes(0, 1) if swap else array, np.eye(4))
    found, _ = orient_label(label, Volume(ct[None].astype(np.float32), np.eye(4)), Path("label.nii.gz"))
    np.testing.assert_array_equal(found, truth)


def test_what_content_leaves_open_the_header_decides() -> None:
    ct, truth = abdomen(3)
    middle = np.repeat(truth[:, :, 9:10], 3, axis=2)
    scan = Volume(np.repeat(ct[:, :, 9:10], 3, axis=2)[None].astype(np.float32), np.diag([-1, -1, 1, 1.0]))
    label = Volume(middle[:, ::-1], np.diag([-1, -1, -1, 1.0]))
    found, how = orient_label(label, scan, Path("label.nii.gz"))
    np.testing.assert_array_equal(found, middle)
    assert how == "Y flipped, Z flipped (by content, against its header)"


def test_labels_that_belong_to_no_scan() -> None:
    ct, truth = abdomen(3)
    path, scan = Path("label0003.nii.gz"), Volume(ct[None].astype(np.float32), np.eye(4))
    with pytest.raises(UserError, match="another size than its scan") as error:
        orient_label(Volume(truth[:, :, 1:], np.eye(4)), scan, path)
    assert error.value.path == path
    noise = Volume(RNG(0).normal(0, 50, (1, *truth.shape)).astype(np.float32), np.eye(4))
    with pytest.raises(UserError, match="cannot be settled"):
        orient_label(Volume(truth, np.eye(4)), noise, path)
    with pytest.raises(UserError, match="is empty"):
        orient_label(Volume(truth * 0, np.eye(4)), scan, path)


@pytest.mark.real
def test_real_liver_stored_flipped(real_data: Path, tmp_path: Path) -> None:
    """Real CT and a real organ in the official layout, the label mirrored in the file."""
    source = real_data / "formats" / "dcmqi"
    folder = tmp_path / "raw" / "PANCREAS_0002" / "study" / "series"
    folder.mkdir(parents=True)
    for file in (source / "ct-3slice").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(source / "liver_seg.nrrd"))).T != 0
    affine = np.diag([-0.810547, -0.810547, 1, 1])
    nib.save(nib.Nifti1Image(truth[:, ::-1].astype(np.uint8), affine), tmp_path / "raw" / "label0002.nii.gz")
    dataset = run_recipe("pancreas-ct", tmp_path / "raw", tmp_path / "out")
    np.testing.assert_array_equal(stored(dataset, "PANCREAS_0002")[1], truth)


def test_pancreas_published_crop(tmp_path: Path) -> None:
    """At 1 mm the label spans 5..11 along X; (96 - 6) // 2 more and 25 beyond on both sides fill the scan."""
    raw = pancreas_tree(tmp_path / "raw", (1,))
    dataset = run_recipe("pancreas-ct", raw, tmp_path / "out", crop="published")
    image, label = stored(dataset, "PANCREAS_0001")
    assert image.array.shape[1:] == (32, 29, 30)
    np.testing.assert_allclose(image.spacing_mm, (1, 1, 1), atol=1e-6)
    assert abs(float(image.array.mean())) < 1e-5 and abs(float(image.array.std()) - 1) < 1e-5
    world = image.affine @ [*np.argwhere(label).mean(axis=0), 1]
    expected = [10 - 0.8 * 8.5, -20 - 0.8 * 24.3, 30 + 10.5]
    np.testing.assert_allclose(world[:3], expected, atol=1.5)
    assert float(image.array[0][label == 1].mean()) > 1.5


@pytest.mark.parametrize(
    ("recipe", "file", "split", "spacing"),
    [
        ("la2018", f"2018LA_Seg_Training Set/{LA[1]}/mri_norm2.h5", "ua-mt", 0.625),
        ("brats2019", f"data/{GLIOMA.train[0]}.h5", "ssl4mis", 1),
        ("pancreas-ct", "Pancreas_h5/image0057_norm.h5", "mc-net", 1),
        ("pancreas-ct", "PANCREAS_0001.h5", "mcf-0", 1),
        ("pancreas-ct", "0001.h5", "coranet", 1),
    ],
)
def test_published_h5_forms_come_with_their_split(
    tmp_path: Path, recipe: str, file: str, split: str, spacing: float
) -> None:
    voxels = RNG(0).normal(size=(5, 6, 7)).astype(np.float32)
    values = RNG(0).integers(0, 2 if recipe == "la2018" else 3, (5, 6, 7))
    h5(tmp_path / "raw" / file, voxels, values)
    dataset = run_recipe(recipe, tmp_path / "raw", tmp_path / "out")
    (case,) = dataset.pool("train")
    image, label = stored(dataset, case.name)
    np.testing.assert_array_equal(image.array[0], voxels)
    np.testing.assert_array_equal(label, values > 0)
    assert image.spacing_mm == (spacing,) * 3
    facts = record(tmp_path / "out")
    assert facts["split"]["name"] == split  # type: ignore[index]
    assert "--set" not in str(facts["prepare"])


def test_h5_files_of_two_forms(tmp_path: Path) -> None:
    for name in ("0001", "PANCREAS_0002", f"BraTS/{GLIOMA.train[0]}"):
        h5(tmp_path / f"{name}.h5", np.zeros((5, 6, 7)), np.zeros((5, 6, 7), np.uint8))
    with pytest.raises(UserError, match="mixes published forms"):
        run_recipe("pancreas-ct", tmp_path, tmp_path / "mixed")


def test_pancreas_incomplete_downloads(tmp_path: Path) -> None:
    raw = pancreas_tree(tmp_path / "raw", (1, 2))
    labels = raw / "TCIA_pancreas_labels-02-05-2017"
    (labels / "label0002.nii.gz").unlink()
    (labels / "label0009.nii.gz").touch()
    slices = sorted((raw / "Pancreas-CT" / "PANCREAS_0001").rglob("*.dcm"))
    dataset = run_recipe("pancreas-ct", raw, tmp_path / "out")
    facts = record(tmp_path / "out")
    assert facts["unlabeled"] == ["PANCREAS_0002"]
    assert facts["unknown"] == ["label0009.nii.gz (label of PANCREAS_0009, without a scan)"]
    assert dataset.case("PANCREAS_0002").label is None
    with pytest.raises(UserError, match="crop needs a label"):
        run_recipe("pancreas-ct", raw, tmp_path / "out2", crop="published")
    slices[4].unlink()
    with pytest.raises(UserError, match="missing"):
        run_recipe("pancreas-ct", raw, tmp_path / "out3")
