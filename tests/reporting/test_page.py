"""The report page: what it says, and that it works in a browser."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from chromium import PROGRAM, Page
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import semivox
from semivox.config import load_config
from semivox.datasets.declared import Classes
from semivox.evaluation.evaluate import evaluate_folder
from semivox.evaluation.summary import summarise
from semivox.inference.outputs import doubtful
from semivox.reporting.page import charts, content
from semivox.reporting.page.build import check_place, write_report
from semivox.reporting.page.source import RunFacts, Scored, read_case, read_run, read_scored
from semivox.reporting.page.viewer import MOST_VOXELS, viewer_case
from semivox.reporting.surfaces import surface_figure

NASTY = "<script>alert(1)</script>"
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium, which is not installed here")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on phantoms, with a report on its validation cases."""
    folder = tmp_path_factory.mktemp("report")
    data = semivox.make_phantoms(folder / "data", train=5, test=2, classes=2, shape=(32, 32, 24), seed=5)
    config = load_config(
        method={"name": "supervised"},
        net={"width": 2},
        split={"labeled": 2, "val": 2},
        plan={"spacing_mm": (2.5, 2.5, 2.5), "patch": (16, 16, 16)},
        train={"iterations": 2, "workers": 0, "validate_every": 1},
    )
    return semivox.train(data, config=config, work=folder / "work", out=folder / "run")


@pytest.fixture(scope="session")
def facts(trained: Path) -> RunFacts:
    return read_run(Path(trained))


def box(start: int, stop: int, value: int = 1) -> np.ndarray:
    label = np.zeros((28, 26, 24), np.uint8)
    label[start:stop, 6:18, 6:18] = value
    return label


@pytest.fixture(scope="session")
def made(facts: RunFacts, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scored]:
    """Predictions made by hand: right, half right, missed, a false alarm, missing; one has a nasty name."""
    folder = tmp_path_factory.mktemp("made")
    pairs = {
        "right": (box(6, 18), box(6, 18)),
        "half": (box(6, 18), box(12, 24)),
        NASTY.replace("/", "\u2215"): (box(6, 18), box(6, 16)),
        "unseen": (box(6, 18), box(0, 0)),
        "alarm": (box(0, 0), box(6, 18)),
        "gone": (box(6, 18), None),
    }
    affine = np.diag([-1.0, -1.0, 1.5, 1.0])
    truth, scans = {}, folder / "scans"
    for part in ("truth", "found", "scans"):
        (folder / part).mkdir()
    generator = np.random.default_rng(0)
    for name, (reference, found) in pairs.items():
        truth[name] = folder / "truth" / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(reference, affine), truth[name])
        image = (100 * reference + generator.normal(0, 10, reference.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, affine), scans / f"{name}.nii.gz")
        if found is not None:
            nib.save(nib.Nifti1Image(found, affine), folder / "found" / f"{name}.nii.gz")
            one = np.stack([found != 1, found == 1, 0 * found]).astype(np.float16)
            np.savez_compressed(folder / "found" / f"{name}.npz", probabilities=0.9 * one + 0.1 / 3)
    classes = Classes(facts.plan.class_names, facts.plan.class_values)
    evaluate_folder(folder / "found", truth, classes, folder / "found", workers=0)
    return folder, read_scored(folder / "found", facts, scans)


@pytest.fixture(scope="session")
def page(facts: RunFacts, made: tuple[Path, Scored]) -> Path:
    path = made[0] / "report.html"
    write_report(path, facts, made[1])
    return path


def test_training_ends_with_a_report_on_the_validation_cases(trained: Path, facts: RunFacts) -> None:
    text = (Path(trained) / "report.html").read_text(encoding="utf-8")
    for case in facts.split.val:
        assert f"<h3>{case}</h3>" in text
    for case in facts.split.unlabeled:
        assert f"<h3>{case}</h3>" not in text
    assert "2 validation cases" in text
    assert {"report.html", "validation/metrics.csv"} <= facts.report["files"].keys()


def test_the_page_holds_everything(page: Path) -> None:
    text = re.sub(
        r"<script>\(function\(sA.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", text)
    assert page.stat().st_size < 15_000_000
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_names_of_cases_are_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_failures_are_named_and_the_worst_come_first(made: tuple[Path, Scored], facts: RunFacts) -> None:
    first, second = facts.plan.class_names[1:]
    assert content.failures(made[1].table) == [
        f"unseen: {first} missed (in the reference, not in the prediction)",
        f"alarm: {first} false alarm (in the prediction, not in the reference)",
        f"gone: {first}, {second} missing (no prediction file)",
    ]
    cases = content.by_case(made[1].table)
    assert cases.loc["half", "mean"] == pytest.approx(0.5)  # two boxes of 12 voxels along x share 6
    order = list(cases.index)
    assert set(order[:3]) == {"unseen", "alarm", "gone"}
    assert order[3] == "half" and order[-1] == "right"


def test_a_scan_is_turned_to_right_front_head(made: tuple[Path, Scored], facts: RunFacts) -> None:
    """The affine has x to the left and y to the back: both are flipped."""
    case = read_case("half", made[1], facts)
    assert case is not None
    assert np.array_equal(case.truth, box(6, 18)[::-1, ::-1])
    assert np.array_equal(case.found, box(12, 24)[::-1, ::-1])
    assert case.scan.spacing == (1.0, 1.0, 1.5)
    place = case.affine @ [0, 0, 0, 1]
    assert place[:3].tolist() == [-27.0, -25.0, 0.0]


def test_a_case_whose_scan_is_gone_has_scores_but_no_picture(
    made: tuple[Path, Scored], facts: RunFacts, tmp_path: Path
) -> None:
    scored = read_scored(made[0] / "found", facts, None)
    assert not scored.scans
    write_report(tmp_path / "x.html", facts, scored)
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "no picture" in text and 'id="viewer"' not in text


def forget(file: Path, *places: Path) -> None:
    """Change paths in a file as if these places were gone."""
    text = file.read_text(encoding="utf-8")
    for place in places:
        text = text.replace(str(place), "/gone")
    file.write_text(text, encoding="utf-8")


def test_predictions_that_were_moved_are_drawn_and_lost_ones_are_not_drawn_as_empty(
    made: tuple[Path, Scored], facts: RunFacts, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(made[0] / "found", tmp_path / "moved"))
    forget(moved / "summary.json", made[0] / "found")
    (moved / "right.nii.gz").unlink()
    scored = read_scored(moved, facts, made[0] / "scans")
    half, gone = read_case("half", scored, facts), read_case("gone", scored, facts)
    assert half is not None and half.found.sum() == 12**3
    assert read_case("right", scored, facts) is None
    assert gone is not None and not gone.found.any()  # there never was a prediction: scored as empty


def test_scores_beside_or_away_from_the_predictions_show_the_same(
    made: tuple[Path, Scored], facts: RunFacts, tmp_path: Path
) -> None:
    for file in ("metrics.csv", "summary.json"):
        shutil.copy(made[0] / "found" / file, tmp_path)
    case = read_case("half", read_scored(tmp_path, facts, made[0] / "scans"), facts)
    assert case is not None and case.doubt is not None and case.probs is not None


def test_a_data_set_that_was_moved_can_be_named(trained: Path, facts: RunFacts, tmp_path: Path) -> None:
    run, data = (Path(shutil.copytree(place, tmp_path / place.name)) for place in (Path(trained), facts.data))
    for file in (run / "run_report.json", run / "validation" / "summary.json"):
        forget(file, facts.data)
    lost = semivox.report(run, out=tmp_path / "lost.html").read_text(encoding="utf-8")
    found = semivox.report(run, out=tmp_path / "found.html", data=data).read_text(encoding="utf-8")
    assert "no picture" in lost and "no picture" not in found
    other = shutil.copytree(run, tmp_path / "other")
    both = semivox.compare_runs([run, other], tmp_path / "both.html", data=data)
    assert "Where they differ most" in both.read_text(encoding="utf-8")
    with pytest.raises(semivox.UserError, match="no such folder"):
        semivox.report(run, data=tmp_path / "none")
    with pytest.raises(semivox.UserError, match="only folders of predictions"):
        semivox.compare_runs([run / "validation", other / "validation"], tmp_path / "c.html", data=data)


def test_whose_predictions_they_are(trained: Path, made: tuple[Path, Scored], tmp_path: Path) -> None:
    def text(folder: Path) -> str:
        page = semivox.report(trained, folder, tmp_path / "x.html", images=made[0] / "scans")
        return page.read_text(encoding="utf-8")

    assert "did not make these predictions" in text(made[0] / "found")
    other = Path(shutil.copytree(made[0] / "found", tmp_path / "other"))
    about = json.loads((Path(trained) / "validation" / "semivox.json").read_text())
    (other / "semivox.json").write_text(json.dumps(about))
    assert "did not make these predictions" not in text(other)
    (other / "semivox.json").write_text(json.dumps(about | {"model": "x", "method": "mcf"}))
    assert "did not make these predictions" in text(other) and "(mcf on phantoms)" in text(other)
    (other / "semivox.json").write_text(json.dumps(about | {"labels": {"background": 0, "spleen": 3}}))
    with pytest.raises(semivox.UserError, match="spleen"):
        text(other)


def test_the_page_tells_how_the_scans_were_prepared(facts: RunFacts, tmp_path: Path) -> None:
    """Published crops were made with the labels of all cases; the importer writes that into dataset.json."""
    about = json.loads((facts.data / "dataset.json").read_text())
    told = "cropped around the labels of all cases, unlabeled and test cases included"
    (tmp_path / "dataset.json").write_text(json.dumps(about | {"description": told}))
    assert told in content.facts(read_run(facts.folder, tmp_path))["Data set"]


def test_older_conventions_and_regions_are_told_and_counted_as_in_the_scores(
    made: tuple[Path, Scored], facts: RunFacts, tmp_path: Path
) -> None:
    truth = {file.name.removesuffix(".nii.gz"): file for file in (made[0] / "truth").iterdir()}
    names, values = facts.plan.class_names, facts.plan.class_values
    classes = Classes(names, values, regions={"both": values[1:]})
    evaluate_folder(made[0] / "found", truth, classes, tmp_path, workers=0, profile="published")
    write_report(tmp_path / "x.html", facts, read_scored(tmp_path, facts, made[0] / "scans"))
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "Distances count failures as 0" in text and "leave failures out" not in text
    # One class missed, one a false alarm, two without a file; the region is not counted again.
    assert "<b>4 failed</b>" in text and "of 12 cases x classes" in text


def test_a_folder_without_scans_of_the_cases_is_refused(made: tuple[Path, Scored], facts: RunFacts) -> None:
    with pytest.raises(semivox.UserError, match="no scan of a scored case"):
        read_scored(made[0] / "found", facts, facts.data / "imagesTs")


def test_one_case_is_neither_several_nor_the_worst(
    made: tuple[Path, Scored], facts: RunFacts, tmp_path: Path
) -> None:
    table = made[1].table
    one = dataclasses.replace(made[1], table=table[table["case"] == "half"], which="validation")
    write_report(tmp_path / "one.html", facts, one)
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "1 validation case<" in text and "Of 1 validation case." in text
    assert "1 cases" not in text and "95 %" not in text.split("<svg")[0] and ">worst<" not in text


def test_structures_that_are_nowhere_have_no_dice(
    made: tuple[Path, Scored], facts: RunFacts, tmp_path: Path
) -> None:
    table = made[1].table[made[1].table["case"] == "half"].assign(status="absent", dice=np.nan)
    write_report(tmp_path / "x.html", facts, dataclasses.replace(made[1], table=table))
    text = re.sub(r"<script.*?</script>", "", (tmp_path / "x.html").read_text(), flags=re.DOTALL)
    assert '<b class="">none</b>' in text and ">nan<" not in text


def test_many_classes_and_failures_stay_readable() -> None:
    names = [f"structure {index}" for index in range(30)]
    table = pd.DataFrame({"case": "a", "class": names, "status": "missed", "dice": 0.0, "value": range(30)})
    (line,) = content.failures(table)
    assert line.startswith("a: structure 0, structure 1, ") and "structure 11 and 18 more missed" in line
    dice, failed = content.case_text(table, "a")
    assert dice.endswith("structure 11 0.000 and 18 more") and failed.endswith("and 18 more missed")
    log = pd.DataFrame({"iteration": [1, 2], "loss": 1.0, "val_dice": 0.5})
    log = log.assign(**{f"val_dice_{name}": 0.5 for name in names})
    assert "structure" in charts.training_curves(log, names[:8])[1].svg
    assert "structure" not in charts.training_curves(log, names)[1].svg


def test_reliability_counts_voxels_by_hand() -> None:
    truth = np.zeros((2, 2, 1), int)
    truth[0] = 1
    given = np.array([[[0.95], [0.75]], [[0.75], [0.05]]])
    counts = charts.reliability_bins(np.stack([1 - given, given]), truth, margin=0)
    assert counts[9].tolist() == [1, 0.95, 1]
    assert counts[7].tolist() == [2, 1.5, 1]
    assert counts[0].tolist() == [1, 0.05, 0]
    # (|1 - 0.95| + |1 - 1.5| + |0 - 0.05|) / 4
    assert charts.calibration_error(counts) == pytest.approx(0.15)


def test_losses_are_told_from_notes() -> None:
    log = pd.DataFrame(
        {"iteration": [1, 2], "loss": [3.0, 2.5], "a": [1.0, 0.5], "b": [2.0, 2.0], "note": [7, 8]}
    )
    assert charts.loss_parts(log) == ["a", "b"]


def test_surfaces_show_both_sides_and_where_they_differ() -> None:
    figure = surface_figure(box(6, 18), box(6, 24), (1, 1, 1.5))
    assert figure is not None
    panels = [axes.images[0].get_array() for axes in figure.axes[:6]]
    shown = [int((np.asarray(panel).max(axis=2) > 75).sum()) for panel in panels]
    assert all(count > 500 for count in shown)
    assert shown[2] > 1.15 * shown[0]  # the prediction is half as long again
    assert surface_figure(box(0, 0), box(0, 0), (1, 1, 1)) is None


def test_large_scans_are_shown_coarser_in_the_same_place(made: tuple[Path, Scored], facts: RunFacts) -> None:
    case = read_case("right", made[1], facts)
    assert case is not None
    block = np.ones((5, 5, 5), np.uint8)
    image = dataclasses.replace(case.scan, image=np.kron(case.scan.image, block))
    truth, found = np.kron(case.truth, block), np.kron(case.found, block)
    large = dataclasses.replace(case, scan=image, truth=truth, found=found, doubt=None)
    shown = viewer_case("x", large)
    read = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(shown["truth"])))
    assert np.prod(read.shape) <= MOST_VOXELS < large.truth.size
    for volume, affine in ((large.truth, large.affine), (np.asarray(read.dataobj), read.affine)):
        center = affine @ [*np.argwhere(volume).mean(axis=0), 1]
        assert center[:3] == pytest.approx(
            (large.affine @ [*np.argwhere(large.truth).mean(axis=0), 1])[:3], abs=1.0
        )


def test_scans_to_look_at_are_named_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "quality.csv"
    file.write_text(
        "case,predicted_dice,low,high,flag,reasons\nodd,0.51,0.4,0.6,look,it is small\n"
        "007,,,,look,outlines are uncertain\nfine,0.9,0.8,1,,\n"
    )
    assert doubtful(file) == [
        ("odd", "predicted Dice 0.51: it is small"), ("007", "outlines are uncertain"),
    ]  # fmt: skip
    assert doubtful(tmp_path / "none.csv") == []


def test_a_file_that_is_no_report_stays(tmp_path: Path, page: Path) -> None:
    check_place(page)
    other = tmp_path / "notes.html"
    other.write_text("mine")
    with pytest.raises(semivox.UserError, match="another file of this name"):
        check_place(other)


def test_folders_without_run_or_scores(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(semivox.UserError, match="no trained run"):
        semivox.report(tmp_path / "none")
    with pytest.raises(semivox.UserError, match="semivox evaluate"):
        semivox.report(trained, tmp_path)


def test_compare_shows_paired_differences(made: tuple[Path, Scored], tmp_path: Path) -> None:
    """The second has a Dice 0.1 higher on every case, so that is the mean difference."""
    table = made[1].table.copy()
    absent = table.iloc[:1].assign(case="nothing", status="absent", dice=np.nan)
    for name, gain in (("a", 0.0), ("b", 0.1)):
        (tmp_path / name).mkdir()
        scores = pd.concat([table.assign(dice=table["dice"] + gain), absent])
        scores.to_csv(tmp_path / name / "metrics.csv", index=False)
    semivox.compare_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "+0.100" in text and "6 cases" in text and "nan" not in text
    alone = summarise(table).set_index(["class", "metric"]).loc[("mean", "dice")]
    assert f"[{alone['low']:.3f}, {alone['high']:.3f}]" in text  # as in the report of one of them
    assert "<script>alert" not in text
    with pytest.raises(semivox.UserError, match="several"):
        semivox.compare_runs([tmp_path / "a"])


def test_numbers_below_a_chart_of_small_differences_stand_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Figure] = []
    monkeypatch.setattr(charts, "_finish", lambda figure, *_: found.append(figure))
    found_by = pd.DataFrame({"mean": -0.00146, "low": -0.002, "high": -0.00095}, index=["ua_mt"])
    charts.difference_chart(found_by, "supervised")
    (figure,) = found
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [label.get_window_extent(renderer) for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) >= 2
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))


def test_notebook_pictures(trained: Path) -> None:
    data = read_run(Path(trained)).data
    scan = next((data / "imagesTs").glob("*.nii.gz"))
    shown = trained.show(read_run(Path(trained)).split.val[0])
    for picture in (semivox.predict_image(trained, scan).plot(), shown):
        assert picture._repr_png_()[1:4] == b"PNG"
    assert 'href="file://' in trained._repr_html_()
    relative = type(trained)(os.path.relpath(trained))  # as from `train` without `out`
    assert (Path(trained) / "report.html").as_uri() in relative._repr_html_()
    assert "href" not in type(trained)("runs/none")._repr_html_()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


WIDTHS = pytest.mark.parametrize(("width", "phone"), [(390, True), (1280, False)])


@needs_chromium
@WIDTHS
def test_the_page_fits_and_asks_nothing_of_the_network(
    browser: Page, page: Path, width: int, phone: bool
) -> None:
    browser.open(page, width=width, phone=phone)
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")
    assert not browser.errors
    assert not browser.requests


@needs_chromium
def test_the_viewer_shows_scan_and_labels(browser: Page, page: Path) -> None:
    browser.open(page, width=1000)
    browser.run("document.getElementById('viewer').scrollIntoView()")
    browser.until("document.getElementById('viewer').dataset.shown !== undefined")
    browser.until("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    with_label = browser.picture("#canvas").astype(int)
    assert with_label.std() > 15
    assert (with_label.max(axis=2) - with_label.min(axis=2) > 60).sum() > 500  # the color of the class
    options = json.loads(
        browser.run("JSON.stringify([...document.querySelectorAll('#case option')].map(o => o.text))")
    )
    assert any(option.startswith("<script>") for option in options)
    assert not browser.errors


@needs_chromium
def test_the_viewer_shows_the_case_that_was_chosen_last(browser: Page, page: Path) -> None:
    """While the viewer starts, or while a case is loaded, another one may be chosen."""
    browser.open(page, width=1000)
    choose = "(at => { choice.value = at; choice.dispatchEvent(new Event('change')); })"
    browser.run("window.choice = document.getElementById('case')")
    shown = "document.getElementById('viewer').dataset.shown"
    browser.run("document.getElementById('viewer').scrollIntoView()")
    for quickly in ((1, 2), (3, 0, 1)):
        for at in quickly:
            browser.run(f"{choose}({at})")
        browser.until(f"{shown} === choice.selectedOptions[0].text")
    assert not browser.errors


@needs_chromium
def test_dark_and_light(browser: Page, page: Path) -> None:
    for dark in (False, True):
        browser.open(page, width=1000, dark=dark)
        corner = browser.picture()[:4, :4].mean()
        assert corner < 60 if dark else corner > 200


@needs_chromium
def test_the_page_prints(browser: Page, page: Path) -> None:
    browser.open(page, width=1000)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 3
