"""Tables and figures of the paper: what each compares, and the published figures beside."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from semivox.benchmark.grid import cells_of, settings_of
from semivox.benchmark.paper.beside import beside, differences, share_of
from semivox.benchmark.paper.items import ITEMS, Entry, entries_of, find_item
from semivox.benchmark.run import Outcome
from semivox.errors import UserError

LA_METHODS = [
    "supervised", "ua_mt", "sassnet", "dtc", "mc_net", "ss_net", "mc_net_plus", "mcf", "bcp", "luseg",
    "ml_rpl", "dual",
]  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Data sets of one case that nobody opens."""
    names = ("LA2018", "pancreas-ct", "brats2019", "Hippocampus")
    return {name: declare(tmp_path / name, {"0": "image"}, {"background": 0, "organ": 1}) for name in names}


def declare(folder: Path, channels: dict[str, str], labels: dict[str, int]) -> Path:
    for name in ("labelsTr/a.nii.gz", *(f"imagesTr/a_000{channel}.nii.gz" for channel in channels)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    content = {"name": folder.name, "channel_names": channels, "labels": labels}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def one(item: str, folder: Path, **changes: Any) -> Entry:
    (entry,) = entries_of(find_item(item), [folder], changes)
    return entry


def test_every_table_and_figure_with_numbers_has_a_command() -> None:
    assert [*ITEMS] == [*(f"table{n}" for n in range(1, 8)), *(f"figure{n}" for n in (1, 5, 6, 7, 8))]


@pytest.mark.parametrize(
    ("name", "nearest"), [("tabel1", "table1"), ("figure 8", "figure8"), ("Table4", "table4")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {nearest}"):
        find_item(name)


@pytest.mark.parametrize(
    ("item", "data", "preset", "labels", "methods"),
    [
        ("table1", "LA2018", "la-8", (8, 16), LA_METHODS),
        ("table2", "pancreas-ct", "pancreas-6", (6, 12), LA_METHODS),
        ("table3", "brats2019", "brats-25", (25, 50),
         ["supervised", "ua_mt", "dtc", "urpc", "cpcl", "ac_mt", "bcp", "ml_rpl", "dual"]),
    ],
)  # fmt: skip
def test_comparisons(
    item: str, data: str, preset: str, labels: tuple[int, ...], methods: list[str], folders: dict[str, Path]
) -> None:
    grid = one(item, folders[data]).grid
    assert (grid.presets, grid.labels, grid.seeds) == ((preset,), labels, (0, 1, 2))
    assert [row.method for row in grid.methods] == methods
    cells = [(cell.labels, cell.variant.label) for cell in cells_of(grid) if cell.seed == 0]
    assert len(cells) == 2 * len(methods) + 1 and ("all", "supervised") in cells
    whole = next(cell for cell in cells_of(grid) if cell.labels == "all")
    assert settings_of(grid, whole).split.labeled is None and "alllabels" in whole.folder


@pytest.mark.parametrize(
    ("item", "data", "rows", "labels", "reference"),
    [
        ("table4", "LA2018", 12, (8,), "all four"),
        ("table5", "LA2018", 2, (8, 12, 16, 20), "MSE"),
        ("table5", "pancreas-ct", 2, (6, 9, 12, 16), "MSE"),
        ("table6", "brats2019", 3, (25, 50), "repel"),
        ("table7", "LA2018", 9, (8,), "alpha = 70"),
        ("table7", "pancreas-ct", 9, (6,), "alpha = 80"),
        ("table7", "brats2019", 9, (25,), "alpha = 30"),
    ],
)
def test_ablations(
    item: str, data: str, rows: int, labels: tuple[int, ...], reference: str, folders: dict[str, Path]
) -> None:
    grid = one(item, folders[data]).grid
    assert (len(grid.methods), grid.labels, grid.reference) == (rows, labels, reference)


@pytest.mark.parametrize(("data", "beta"), [("LA2018", "0.5"), ("pancreas-ct", "0.6"), ("brats2019", "0.5")])
def test_figure_8_marks_the_published_setting_of_each_data_set(
    data: str, beta: str, folders: dict[str, Path]
) -> None:
    entry = one("figure8", folders[data])
    assert entry.references == ("tau = 0.6", "temperature = 0.5", f"beta = {beta}")
    assert len(entry.grid.methods) == 6 + 5 + 5
    cells = {
        cell.variant.label: settings_of(entry.grid, cell).method.options for cell in cells_of(entry.grid)
    }
    assert cells["tau = 0.4"].get("beta", 0.5) == float(beta), "the other options are those of the data set"


def test_figure_1_takes_several_data_sets(folders: dict[str, Path]) -> None:
    data = list(folders.values())[:3]
    entries = entries_of(find_item("figure1"), data, {})
    assert [entry.grid.presets[0] for entry in entries] == ["la-8", "pancreas-6", "brats-25"]
    with pytest.raises(UserError, match="2 presets"):
        entries_of(find_item("figure1"), data, {"presets": ["la-8", "lite"]})
    with pytest.raises(UserError, match="same name"):
        entries_of(find_item("figure1"), [data[0], data[0]], {})


def test_a_user_can_run_it_small(folders: dict[str, Path]) -> None:
    changes = {"presets": ["hippocampus-lite"], "seeds": 1, "labels": [4], "methods": ["ua_mt", "dual"]}
    entry = one("table1", folders["Hippocampus"], **changes, assignments=["train.iterations=3"])
    rows = [(cell.variant.published, cell.labels) for cell in cells_of(entry.grid)]
    assert rows == [("UA-MT", 4), ("dual", 4)]
    assert settings_of(entry.grid, cells_of(entry.grid)[0]).train.iterations == 3
    with pytest.raises(UserError, match="not known"):
        one("table1", folders["Hippocampus"])
    with pytest.raises(UserError, match="--paper table2"):
        one("table1", folders["pancreas-ct"])


def test_labels_stand_for_shares_of_the_published_lists() -> None:
    shares = [share_of(n, "la-8-lite", "la") for n in (8, 12, 16, 20, "all", 0.1)]
    assert shares == [0.1, 0.15, 0.2, 0.25, 1.0, 0.1]
    assert [share_of(n, "pancreas-6", "pancreas") for n in (6, 12)] == [0.1, 0.2]
    assert math.isnan(share_of(7, "la-8", "la")) and math.isnan(share_of(8, "hippocampus-lite", "la"))


# Typed from the paper: item, data, row, share of labels; Dice, Jaccard (percent), 95HD, ASD (voxels), each
# with its spread; M parameters and GMAC.
PRINTED = """
table1; LA2018; dual; 0.1; 89.95 0.58 81.81 0.95 5.73 0.63 1.79 0.24; 27.30 126.95
table1; LA2018; supervised; 1.0; 90.62 0.61 83.04 1.01 6.27 1.28 1.81 0.28; 9.44 47.10
table1; LA2018; ua_mt; 0.2; 90.17 0.59 82.21 0.97 8.15 1.95 2.36 0.42; 18.88 94.80
table2; pancreas-ct; bcp; 0.1; 57.35 4.15 42.34 3.73 29.85 3.56 8.19 0.99; 28.32 141.90
table3; brats2019; ac_mt; 0.2; 84.63 1.91 74.39 2.33 9.50 1.63 2.11 0.32; 18.88 83.06
table4; LA2018; EFS; 0.1; 86.66 1.51 77.03 2.18 9.86 1.89 3.14 0.41;
table4; brats2019; CCE; 0.1; 83.41 1.73 73.49 2.22 9.45 1.44 2.44 0.38;
table5; pancreas-ct; KL; 0.15; 53.18 5.67 40.10 5.09 34.05 8.86 3.23 1.08;
table6; LA2018; attract; 0.2; 90.90 0.54 83.41 0.90 5.28 0.58 1.63 0.15;
table6; LA2018; none; 0.1; 89.82 0.57 81.62 0.93 5.98 0.63 1.81 0.15;
table7; brats2019; alpha = 40; 0.1; 84.31 1.50 74.41 2.00 10.14 1.71 2.76 0.47;
"""


@pytest.mark.parametrize("printed", PRINTED.strip().splitlines())
def test_published_figures_stand_beside_verbatim(printed: str, folders: dict[str, Path]) -> None:
    item, data, row, share, values, size = (part.strip() for part in printed.split(";"))
    entry = one(item, folders[data])
    lines = beside(find_item(item), entry, _unfinished(entry))
    (line,) = lines[(lines["row"] == row) & (lines["share"] == float(share))].to_dict("records")
    names = ("dice", "jaccard", "hd95_vox", "asd_vox")
    found = [line[f"{name}_{part}"] for name in names for part in ("published", "spread")]
    assert found == [float(value) for value in values.split()]
    if size:
        assert [line["params_M"], line["macs_G"]] == [float(value) for value in size.split()]


def test_a_figure_of_few_labels_has_no_printed_row_of_more(folders: dict[str, Path]) -> None:
    entry = one("figure1", folders["LA2018"])
    lines = beside(find_item("figure1"), entry, _unfinished(entry))
    assert list(lines["row"]) == LA_METHODS and set(lines["share"]) == {0.1}


def test_rows_that_cannot_be_matched_stand_at_the_end(folders: dict[str, Path]) -> None:
    """Which module rows 4 to 7 of Table 4 leave out is not known."""
    entry = one("table4", folders["LA2018"])
    lines = beside(find_item("table4"), entry, _unfinished(entry))
    assert list(lines["dice_published"][-4:]) == [88.37, 89.47, 89.77, 89.93]
    assert lines["row"].iloc[-1].startswith("row 7")
    assert lines.set_index("row")["dice_published"].loc["without PGL"] != 89.93


@pytest.mark.parametrize(("channels", "classes"), [(2, 1), (1, 2)])
def test_the_papers_settings_are_for_one_channel_and_one_class(
    channels: int, classes: int, tmp_path: Path
) -> None:
    labels = {"background": 0, "tumor": 1, "ignore": 9}
    one("table3", declare(tmp_path / "BraTS2019", {"0": "FLAIR"}, labels))
    names = {str(number): f"channel{number}" for number in range(channels)}
    folder = declare(
        tmp_path / "other" / "BraTS2019",
        names,
        labels | {f"class{value}": value for value in range(2, classes + 1)},
    )
    with pytest.raises(UserError, match=f"channels: {channels}, classes: {classes}"):
        one("table3", folder)
    assert one("table3", folder, presets=["brats-25"]).grid.presets == ("brats-25",), "asked for by name"


def _outcome(training: int, test: int, channels: int = 1, val: int = 1) -> Outcome:
    from types import SimpleNamespace

    split = SimpleNamespace(labeled=range(2), unlabeled=range(training - 2), val=range(val))
    plan = SimpleNamespace(channels=["a"] * channels, class_names=["background", "a"])
    return Outcome(cells=[SimpleNamespace(split=split, cases=range(test), plan=plan)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("item", "data", "training", "test"),
    [("table1", "LA2018", 80, 20), ("table2", "pancreas-ct", 62, 20), ("table3", "brats2019", 250, 60)],
)
def test_nothing_differs_in_the_published_protocol(
    item: str, data: str, training: int, test: int, folders: dict[str, Path]
) -> None:
    free = ["train.workers=0", "train.precision=32"]
    entry = one(item, folders[data], assignments=free)
    assert differences(find_item(item), entry, _outcome(training, test, val=25)) == []


def test_what_is_not_as_published_is_named(folders: dict[str, Path]) -> None:
    small = ["train.iterations=25", "net.width=4", "plan.spacing_mm=[2,2,2]"]
    entry = one("table2", folders["pancreas-ct"], seeds=1, assignments=small)
    assert differences(find_item("table2"), entry, _outcome(18, 5, channels=2)) == [
        "25 iterations (6000)", "18 training cases (62)", "5 test cases (20)", "1 seed (3)", "2 channels (1)",
        "net.width 4 (16)", "plan.spacing_mm 2 x 2 x 2 (1 x 1 x 1)",
    ]  # fmt: skip
    other = one("table1", folders["Hippocampus"], presets=["la-8-lite"], cases="val", methods=["dual"])
    found = differences(find_item("table1"), other, _outcome(70, 10, val=10))
    assert found[0] == "data set Hippocampus (LA)" and "validation instead of test cases (20)" in found
    assert "70 training cases (80)" in found, "a case that validates is not trained on"
    assert "dual.mix paste (default)" in found and "method.batch 1 x 2 (default)" in found


def _unfinished(entry: Entry) -> Outcome:
    """Jobs of which nothing is finished, without data."""
    from types import SimpleNamespace

    cells: Any = [
        SimpleNamespace(place=place, split=SimpleNamespace(labeled=range(9)), cost=None, sizes=dict)
        for place in cells_of(entry.grid)
    ]
    return Outcome(cells=cells)
