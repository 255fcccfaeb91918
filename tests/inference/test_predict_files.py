"""Folders in, folders out: values, headers, resuming, and what happens when a file is bad."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semivox import progress
from semivox.config import PredictConfig
from semivox.errors import UserError
from semivox.inference import outputs, predict
from semivox.inference.predict import predict_files

CONFIG = PredictConfig()
VALUES = (0, 7, 300)
OUTPUTS = {"predict.json", "quality.csv", "semivox.json"}


@pytest.fixture
def model(make_model):
    return make_model()


@pytest.fixture
def scans(tmp_path, save_scan, blocks) -> Path:
    """Three scans, one named with a space and non-ASCII letters."""
    for index, name in enumerate(("a", "b 2", "č")):
        save_scan(tmp_path / "scans" / f"{name}.nii.gz", np.roll(blocks(), index, axis=0))
    return tmp_path / "scans"


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def values_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def stamps(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.nii.gz")}


def test_folder_of_scans(model, scans, tmp_path):
    seen = []
    written = predict_files(
        model, scans, tmp_path / "out", CONFIG, progress=lambda *report: seen.append(report)
    )
    assert [file.name for file in written] == ["a.nii.gz", "b 2.nii.gz", "č.nii.gz"]
    assert names(tmp_path / "out") == {"a.nii.gz", "b 2.nii.gz", "č.nii.gz", *OUTPUTS}
    for file in written:
        expected = np.asarray(VALUES)[values_of(scans / file.name).astype(int)]
        np.testing.assert_array_equal(values_of(file), expected)
    assert seen == [(1, 3, "a"), (2, 3, "b 2"), (3, 3, "č")]
    description = json.loads((tmp_path / "out" / "semivox.json").read_text())
    expected = {
        "dataset": "Blocks",
        "channels": ["MR"],
        "labels": {"background": 0, "part 7": 7, "part 300": 300},
    }
    assert expected.items() <= description.items()


def test_header_of_the_scan_is_kept(model, tmp_path, blocks):
    affine = np.array([[0, 0, -3, 40], [-1.0, 0, 0, 5], [0, 2, 0, -60], [0, 0, 0, 1]])
    image = nib.Nifti1Image(blocks().astype(np.int16), affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 2)
    image.header.set_xyzt_units("mm", "sec")
    (tmp_path / "scans").mkdir()
    nib.save(image, tmp_path / "scans" / "case_0000.nii.gz")
    (file,) = predict_files(model, tmp_path / "scans", tmp_path / "out", CONFIG)
    result = nib.load(file)
    assert file.name == "case.nii.gz"
    assert result.shape == image.shape
    np.testing.assert_allclose(result.affine, affine)
    np.testing.assert_allclose(result.get_qform(), affine, atol=1e-5)
    assert (int(result.header["sform_code"]), int(result.header["qform_code"])) == (2, 2)
    assert result.header.get_xyzt_units()[0] == "mm"
    assert result.header.get_zooms() == image.header.get_zooms()
    assert result.get_data_dtype().kind in "iu"


def test_two_channels_in_a_folder_by_one_file_and_by_name(make_model, save_scan, tmp_path, blocks):
    model, written = make_model(channels=("T1", "T2")), []
    save_scan(tmp_path / "scans" / "x_0000.nii.gz", blocks() + 0.5)
    save_scan(tmp_path / "scans" / "x_0001.nii.gz", blocks() - 0.5)
    save_scan(tmp_path / "scans" / "y.nii.gz", np.stack([blocks() + 0.2, blocks() - 0.2], -1))
    named = {"patient 1": [tmp_path / "scans" / f"x_{index:04}.nii.gz" for index in (0, 1)]}
    for source, count in ((tmp_path / "scans", 2), (tmp_path / "scans" / "x_0001.nii.gz", 1), (named, 1)):
        files = predict_files(model, source, tmp_path / f"out{len(written)}", CONFIG)
        assert len(files) == count
        written += files
    assert [file.name for file in written] == ["x.nii.gz", "y.nii.gz", "x.nii.gz", "patient 1.nii.gz"]
    for file in written:
        np.testing.assert_array_equal(values_of(file), np.asarray(VALUES)[blocks()])


def test_probabilities(model, scans, tmp_path, blocks):
    predict_files(model, scans / "a.nii.gz", tmp_path / "out", CONFIG, save_probabilities=True)
    with np.load(tmp_path / "out" / "a.npz") as stored:
        probs = stored["probabilities"]
    assert probs.shape == (3, *blocks().shape)
    assert probs.dtype == np.float16
    np.testing.assert_allclose(probs.astype(np.float32).sum(0), 1, atol=2e-3)
    np.testing.assert_array_equal(probs.argmax(0), blocks())


def test_members(make_model, scans, tmp_path, blocks):
    model = make_model("levels_pair")
    predict_files(model, scans / "a.nii.gz", tmp_path / "out", CONFIG, save_members=True)
    assert names(tmp_path / "out") == {"a.nii.gz", "right/a.nii.gz", "high/a.nii.gz", *OUTPUTS}
    np.testing.assert_array_equal(
        values_of(tmp_path / "out" / "right" / "a.nii.gz"), np.asarray(VALUES)[blocks()]
    )
    high = values_of(tmp_path / "out" / "high" / "a.nii.gz")
    np.testing.assert_array_equal(high, np.asarray(VALUES)[np.maximum(blocks(), 1) - 1])


def test_finished_scans_are_skipped(model, scans, tmp_path):
    out = tmp_path / "out"
    predict_files(model, scans, out, CONFIG)
    (out / "b 2.nii.gz").unlink()
    before, seen = stamps(out), []
    written = predict_files(model, scans, out, CONFIG, progress=lambda *report: seen.append(report[:3]))
    assert len(written) == 3 and all(file.exists() for file in written)
    assert seen == [(3, 3, "b 2")]
    assert stamps(out) == before | {"b 2.nii.gz": stamps(out)["b 2.nii.gz"]}


def test_batch_size_does_not_make_results_stale(model, scans, tmp_path):
    predict_files(model, scans, tmp_path / "out", CONFIG)
    before = stamps(tmp_path / "out")
    predict_files(model, scans, tmp_path / "out", PredictConfig(batch=5))
    assert stamps(tmp_path / "out") == before


def test_files_asked_for_later_are_added(make_model, scans, tmp_path):
    model, out = make_model("levels_pair"), tmp_path / "out"
    predict_files(model, scans / "a.nii.gz", out, CONFIG)
    predict_files(model, scans / "a.nii.gz", out, CONFIG, save_probabilities=True)
    assert "a.npz" in names(out)
    predict_files(model, scans / "a.nii.gz", out, CONFIG, save_probabilities=True, save_members=True)
    assert "high/a.nii.gz" in names(out)
    before = stamps(out)
    predict_files(model, scans / "a.nii.gz", out, CONFIG, save_probabilities=True, save_members=True)
    assert stamps(out) == before
    (out / "a.npz").unlink()  # lost: made again
    predict_files(model, scans / "a.nii.gz", out, CONFIG, save_probabilities=True)
    assert "a.npz" in names(out)


def refused(before: str, *arguments, **options) -> None:
    with pytest.raises(UserError, match=before) as caught:
        predict_files(*arguments, **options)
    assert "--overwrite" in str(caught.value)


def test_output_of_another_model_is_not_replaced_silently(
    model, make_model, scans, tmp_path, save_scan, blocks
):
    out, other = tmp_path / "out", make_model(folder="other", sharpness=9.0)
    predict_files(model, scans / "a.nii.gz", out, CONFIG)
    refused("predictions of another model", other, scans / "č.nii.gz", out, CONFIG)
    refused("another scan", model, save_scan(tmp_path / "b" / "a.nii.gz", 1 - blocks()), out, CONFIG)
    predict_files(model, scans, out, CONFIG)
    before = stamps(out)
    refused("another model", other, scans, out, CONFIG)
    refused("a file of other settings", model, scans, out, PredictConfig(overlap=0.25))
    assert stamps(out) == before
    predict_files(other, scans, out, CONFIG, overwrite=True)
    assert all(stamps(out)[name] > stamp for name, stamp in before.items())
    predict_files(other, scans, out, CONFIG)
    refused("another model", model, scans, out, CONFIG)


def test_file_of_unknown_origin(model, scans, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_bytes(b"precious")
    refused("does not list", model, scans, tmp_path / "out", CONFIG)
    assert names(tmp_path / "out") == {"a.nii.gz"}
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == b"precious"


@pytest.fixture
def interrupt(monkeypatch) -> Callable[[str, str], AbstractContextManager[None]]:
    """Return a context in which writing one label file is interrupted just before or just after."""

    @contextmanager
    def make(name: str, moment: str) -> Iterator[None]:
        real = outputs.write_label

        def stopped(path, *arguments):
            if path.name == name and moment == "before":
                raise KeyboardInterrupt
            real(path, *arguments)
            if path.name == name:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(outputs, "write_label", stopped)
            yield

    return make


@pytest.mark.parametrize(("moment", "left"), [("before", ["b 2", "č"]), ("after", ["č"])])
def test_interrupted_while_writing(model, scans, tmp_path, interrupt, moment, left):
    with interrupt("b 2.nii.gz", moment):
        predict_files(model, scans, tmp_path / "out", CONFIG)
    seen = []
    predict_files(model, scans, tmp_path / "out", CONFIG, progress=lambda *report: seen.append(report[2]))
    assert seen == left


def test_interrupted_while_replacing(model, make_model, scans, tmp_path, interrupt):
    """The other model's file must not pass for the new one's."""
    scan, out = scans / "a.nii.gz", tmp_path / "out"
    predict_files(make_model("levels_pair", folder="other"), scan, out, CONFIG)
    with interrupt("a.nii.gz", "before"):
        predict_files(model, scan, out, CONFIG, overwrite=True)
    seen = []
    predict_files(model, scan, out, CONFIG, progress=lambda *report: seen.append(report[2]))
    assert seen == ["a"]


def test_replacing_leaves_nothing_of_the_other_model(model, make_model, scans, tmp_path):
    scan, out = scans / "a.nii.gz", tmp_path / "out"
    other = make_model("levels_pair", folder="other")
    predict_files(other, scan, out, CONFIG, save_probabilities=True, save_members=True)
    predict_files(model, scan, out, CONFIG, overwrite=True)
    assert names(out) == {"a.nii.gz", *OUTPUTS}


def test_progress_for_programs(model, scans, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(progress._form, "json", True)
    with progress.show_progress("predict") as report:
        predict_files(model, scans, tmp_path / "out", CONFIG, progress=report)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == {"step": "predict", "done": 1, "total": 3, "name": "a"}
    assert (lines[-1]["done"], lines[-1]["name"]) == (3, "č")


def test_bad_files_do_not_stop_the_others(model, scans, tmp_path, save_scan, blocks):
    (scans / "b 2.nii.gz").write_bytes((scans / "b 2.nii.gz").read_bytes()[:200])
    save_scan(scans / "x_0000.nii.gz", blocks())
    save_scan(scans / "x_0001.nii.gz", blocks())
    seen = []
    with pytest.raises(UserError, match=r"2 of 4 scans(.|\n)*b 2: (.|\n)*x: ") as caught:
        predict_files(model, scans, tmp_path / "out", CONFIG, progress=lambda *report: seen.append(report))
    assert "wrong number of channels: 2" in str(caught.value)
    assert names(tmp_path / "out") == {"a.nii.gz", "č.nii.gz", *OUTPUTS}
    assert [report[0] for report in seen] == [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"^(?!1 of 1)(.|\n)*b 2\.nii\.gz"):
        predict_files(model, scans / "b 2.nii.gz", tmp_path / "out", CONFIG)

    save_scan(scans / "b 2.nii.gz", blocks())
    (scans / "x_0001.nii.gz").unlink()
    before = stamps(tmp_path / "out")
    assert len(predict_files(model, scans, tmp_path / "out", CONFIG)) == 4
    assert before.items() <= stamps(tmp_path / "out").items()


def test_scans_that_are_too_large_or_cannot_be_named_do_not_stop_the_others(
    model, scans, tmp_path, save_scan, blocks
):
    save_scan(scans / "huge.nii.gz", blocks(), np.diag([5000.0, 5000, 5000, 1]))
    (scans / "lost.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    (scans / "._a.nii.gz").write_bytes(b"Mac OS X")
    save_scan(scans / "LETTERS.NII.GZ".lower(), blocks()).rename(scans / "LETTERS.NII.GZ")
    save_scan(scans / "x.nii.gz", blocks()).rename(scans / ("x" * 230 + ".nii.gz"))
    save_scan(scans / "y.nii.gz", blocks()).rename(scans / "y\udcff.nii.gz")
    with pytest.raises(UserError, match="4 of 8 scans could not be segmented") as caught:
        predict_files(model, scans, tmp_path / "out", CONFIG)
    for text in (
        "huge: The scan does not fit into this machine's memory",
        "lost: The file does not exist",
        "No file can have the name of this scan: xxx",
        "No file can have the name of this scan: y\\udcff: bytes",
    ):
        assert text in str(caught.value), text
    assert names(tmp_path / "out") == {"a.nii.gz", "b 2.nii.gz", "č.nii.gz", "LETTERS.nii.gz", *OUTPUTS}


def test_memory_that_runs_out_ends_one_scan(model, scans, tmp_path, monkeypatch):
    real = predict.predict_case

    def short(model, image, config, **options):
        if not image.array.any():
            raise MemoryError("Unable to allocate 80.0 GiB")
        return real(model, image, config, **options)

    monkeypatch.setattr(predict, "predict_case", short)
    image = nib.load(scans / "a.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 0, image.affine), scans / "a.nii.gz")
    with pytest.raises(UserError, match="1 of 3 scans") as caught:
        predict_files(model, scans, tmp_path / "out", CONFIG)
    assert "80.0 GiB" in str(caught.value) and names(tmp_path / "out") >= OUTPUTS


def test_scans_are_never_replaced(model, scans, tmp_path):
    before = stamps(scans)
    (tmp_path / "link").symlink_to(scans)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.nii.gz").symlink_to(scans / "a.nii.gz")
    for source, out in (
        (scans, scans),
        (scans, scans / ".." / "scans"),
        (scans, tmp_path / "link"),
        (tmp_path / "links", scans),
        (tmp_path / "links", tmp_path / "links"),
    ):
        with pytest.raises(UserError, match="folder of the scans"):
            predict_files(model, source, out, CONFIG, overwrite=True)
    assert stamps(scans) == before
    assert names(scans) == set(before)


def test_unusable_settings_are_refused_before_any_work(model, scans, tmp_path):
    with pytest.raises(UserError, match="stride"):
        predict_files(model, scans, tmp_path / "out", PredictConfig(stride=(17, 1, 1)))
    assert not (tmp_path / "out").exists()


def test_output_has_to_be_a_folder(model, scans, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "result.nii.gz", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"not a folder|through a file"):
            predict_files(model, scans, out, CONFIG)


def test_empty_folder(model, tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(UserError, match="no scans"):
        predict_files(model, tmp_path / "scans", tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()
