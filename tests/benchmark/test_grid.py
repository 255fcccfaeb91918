"""Grids: what is run, in which order, with which settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semivox.benchmark.grid import cells_of, settings_of
from semivox.benchmark.grid_file import ablation_names, load_grid
from semivox.config import load_config
from semivox.errors import UserError
from semivox.methods import method_class

SMALL: dict[str, Any] = {
    "methods": ["supervised", "dual"],
    "labels": [4, 8],
    "seeds": 2,
    "presets": ["la-8-lite"],
}


def test_seeds_are_outermost_by_default() -> None:
    """With little time one seed of everything is worth more than all seeds of one method."""
    cells = cells_of(load_grid(changes=SMALL))
    assert [(cell.seed, cell.labels, cell.variant.label) for cell in cells] == [
        (0, 4, "supervised"), (0, 4, "dual"), (0, 8, "supervised"), (0, 8, "dual"),
        (1, 4, "supervised"), (1, 4, "dual"), (1, 8, "supervised"), (1, 8, "dual"),
    ]  # fmt: skip


def test_another_priority() -> None:
    grid = load_grid(changes={**SMALL, "priority": ["methods", "labels", "presets", "seeds"]})
    assert [(cell.variant.label, cell.labels, cell.seed) for cell in cells_of(grid)][:3] == [
        ("supervised", 4, 0), ("supervised", 4, 1), ("supervised", 8, 0),
    ]  # fmt: skip


def test_a_file_replaces_axes_of_an_ablation_and_the_command_line_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("labels: [2, 3]\nseeds: [7]\n", encoding="utf-8")
    grid = load_grid(file=file, ablation="contrast", changes={"labels": [5], "presets": None})
    assert (grid.labels, grid.seeds, grid.presets) == ((5,), (7,), (None,))
    assert [variant.label for variant in grid.methods] == ["repel", "attract", "none"]


def test_rows_of_an_ablation_or_file_are_chosen_by_label(tmp_path: Path) -> None:
    few = load_grid(ablation="tau", changes={"methods": ["tau = 0.5", "tau = 0.4"]})
    assert [(row.label, row.options) for row in few.methods] == [
        ("tau = 0.5", {"tau": 0.5}), ("tau = 0.4", {"tau": 0.4}),
    ]  # fmt: skip
    assert few.reference is None, "tau = 0.6 is not among them: the first"
    assert load_grid(ablation="tau", changes={"methods": ["dual", "tau = 0.6"]}).reference == "tau = 0.6"
    file = tmp_path / "grid.yaml"
    file.write_text("methods: [dual, {label: wide, method: dual, settings: {net: {width: 32}}}]\n", "utf-8")
    (row,) = load_grid(file=file, changes={"methods": "wide"}).methods
    assert (row.method, row.settings) == ("dual", {"net": {"width": 32}})
    with pytest.raises(UserError, match="Unknown reference: tau"):
        load_grid(ablation="tau", changes={"methods": ["dual"], "reference": "tau = 0.5"})


ABLATIONS = {  # rows and labels
    "modules": (12, (0.1,)), "distance": (2, (0.1, 0.15, 0.2, 0.25)), "contrast": (3, (0.1, 0.2)),
    "percentile": (9, (0.1,)), "tau": (6, (0.1,)), "temperature": (5, (0.1,)), "beta": (5, (0.1,)),
}  # fmt: skip


@pytest.mark.parametrize("name", ablation_names())
def test_shipped_ablations(name: str) -> None:
    rows, labels = ABLATIONS[name]
    grid = load_grid(ablation=name)
    assert (len(grid.methods), grid.labels) == (rows, labels)
    options = [method_class(row.method).Config(**row.options) for row in grid.methods]
    assert len({str(option) for option in options}) == rows, "two rows are the same"
    by_label = {row.label: option for row, option in zip(grid.methods, options, strict=True)}
    reading = {"ue_reading": "term"} if name == "modules" else {}  # Table 4 gives UE a row of its own
    published = method_class("dual").Config(**reading)
    assert by_label[grid.reference or ""] == published, "the others are compared with the published setting"


@pytest.mark.parametrize(
    ("presets", "labels"),
    [
        (["la-8-lite"], (8, 12, 16, 20)), (["la-8", "la-16-lite"], (8, 12, 16, 20)),
        (["pancreas-6"], (6, 9, 12, 16)), (["brats-25"], (25, 38, 50, 63)),
        (["la-8", "brats-25"], (0.1, 0.15, 0.2, 0.25)), (["hippocampus-lite"], (0.1, 0.15, 0.2, 0.25)),
    ],
)  # fmt: skip
def test_an_ablation_has_the_published_numbers_of_labels(
    presets: list[str], labels: tuple[float, ...]
) -> None:
    """Also with presets that take validation cases from the training list."""
    grid = load_grid(ablation="distance", changes={"presets": presets})
    assert grid.labels == labels and type(grid.labels[0]) is type(labels[0])
    assert load_grid(ablation="distance", changes={"presets": presets, "labels": [0.1]}).labels == (0.1,)


def test_a_preset_does_not_switch_the_modules_of_a_row() -> None:
    """This preset has two terms off."""
    grid = load_grid(ablation="modules", changes={"presets": ["phantoms-lite"], "seeds": 1})
    rows = {cell.variant.label: settings_of(grid, cell).method.options for cell in cells_of(grid)}
    terms = ("cr", "cps", "efs", "ue", "pgl")
    on = {label: [name for name in terms if row[name]] for label, row in rows.items()}
    assert on["all four"] == ["cr", "cps", "efs", "ue", "pgl"] and on["no term"] == []
    assert (on["CCE"], on["without CCE"]) == (["cps", "efs"], ["cr", "ue", "pgl"])


def test_settings_of_a_cell() -> None:
    changes = {
        **SMALL,
        "methods": ["supervised", {"label": "no CR", "method": "dual", "options": {"cr": False}}],
        "settings": {"net": {"width": 4}},
        "assignments": ["net.width=2"],
    }
    grid = load_grid(changes=changes)
    supervised, variant = (settings_of(grid, cell) for cell in cells_of(grid)[:2])
    assert supervised.method.options == {}, "the preset's options are dual's"
    preset = load_config(preset="la-8-lite").method.options
    assert preset and "cr" not in preset
    assert variant.method.options == {**preset, "cr": False}
    assert (variant.net.width, variant.split.labeled, variant.split.val, variant.train.seed) == (2, 4, 10, 0)
    assert supervised.method.batch is None
    assert variant.method.batch == load_config(preset="la-8-lite").method.batch


def test_each_row_has_the_settings_of_its_method_and_all_have_those_of_the_grid() -> None:
    """`dual` trains with SGD as published, the default with its AdamW; both for as long as the grid says."""
    changes = {
        "methods": ["dual", "self_training", "labels_only"],
        "seeds": 1,
        "assignments": ["train.iterations=70", "net.dropout=0.1"],
    }
    grid = load_grid(changes=changes)
    rows = {cell.variant.label: settings_of(grid, cell) for cell in cells_of(grid)}
    assert {name: row.method.name for name, row in rows.items()} == {name: name for name in rows}
    assert {name: (row.train.optimizer, row.train.average, row.net.width) for name, row in rows.items()} == {
        "dual": ("sgd", 0.0, 16),
        "self_training": ("adamw", 0.99, 24),
        "labels_only": ("adamw", 0.99, 24),
    }
    assert {(row.train.iterations, row.net.dropout) for row in rows.values()} == {(70, 0.1)}


def test_a_row_may_have_settings_of_its_own() -> None:
    row = {"label": "longer", "method": "supervised", "settings": {"train": {"iterations": 70}}}
    changes = {**SMALL, "methods": ["supervised", row], "settings": {"train": {"iterations": 7, "lr": 0.5}}}
    grid = load_grid(changes=changes)
    plain, longer = (settings_of(grid, cell).train for cell in cells_of(grid)[:2])
    assert (plain.iterations, longer.iterations, plain.lr, longer.lr) == (7, 70, 0.5, 0.5)
    wrong = load_grid(changes={**changes, "methods": [{**row, "settings": {"trian": {"lr": 1}}}]})
    with pytest.raises(UserError, match="trian"):
        settings_of(wrong, cells_of(wrong)[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"train": {"seed": 9}}}, "Two values for train.seed"),
        ({"assignments": ["train.seed=9"]}, "Two values for train.seed"),
        ({"settings": {"split": {"labeled": 7}}}, "Two values for split.labeled"),
        ({"assignments": ["split.labeled=7"]}, "Two values for split.labeled"),
        ({"methods": [{"method": "dual", "settings": {"train": {"seed": 9}}}]}, "Two values for train.seed"),
        (
            {"methods": [{"method": "dual", "settings": {"plan": {"grid": "source"}}}]},
            "plan for the row dual",
        ),
        ({"methods": [{"method": "dual", "settings": {"split": {"val": 5}}}]}, "split for the row dual"),
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused(changes: dict[str, Any], words: str) -> None:
    """An axis of the grid stands for it, or all rows share it."""
    with pytest.raises(UserError, match=words):
        grid = load_grid(changes={**SMALL, **changes})
        settings_of(grid, cells_of(grid)[0])


def test_a_setting_that_says_the_same_as_the_grid_is_accepted() -> None:
    changes = {**SMALL, "labels": [7], "seeds": [9], "assignments": ["split.labeled=7", "train.seed=9"]}
    settings = {"split": {"labeled": 7}, "train": {"seed": 9}}
    grid = load_grid(changes={**changes, "settings": settings})
    assert settings_of(grid, cells_of(grid)[0]).train.seed == 9


def test_folders_are_readable_and_of_one_level() -> None:
    row = {"label": "a / b = 1", "method": "dual"}
    grid = load_grid(changes={"methods": [row], "labels": [0.25], "seeds": [3]})
    assert cells_of(grid)[0].folder == "runs/default/0.25labels/a_b_1/seed3"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": []}, "no methods"),
        ({"metods": ["dual"]}, "did you mean methods"),
        ({"methods": [{"method": "dual", "optoins": {}}]}, "did you mean options"),
        ({"compare": {"method": "dual", "reference": "dual", "metrc": ""}}, "did you mean metric"),
        ({"seeds": 0}, "a whole number from 1 on, or a list"),
        ({"methods": ["dual", "dual"]}, "same name"),
        ({"labels": [4, 4]}, "same name"),
        ({"priority": ["seeds", "labels"]}, "each axis once"),
        ({"reference": "duel"}, "Unknown reference: duel"),
        ({"compare": {"method": "dual", "reference": "supervised"}}, "Unknown compare.labels"),
        (
            {"compare": {"method": "dual", "reference": "mean", "labels": 4}},
            "Unknown compare.reference: mean",
        ),
        (
            {"compare": {"method": "dual", "reference": "supervised", "labels": 4, "metric": "dise"}},
            "Unknown compare.metric: dise",
        ),
    ],
)
def test_mistakes_are_explained(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_grid(changes={**SMALL, **changes})


def test_an_unknown_ablation() -> None:
    with pytest.raises(UserError, match="did you mean modules"):
        load_grid(ablation="module")


def test_a_comparison_is_completed_where_there_is_no_choice() -> None:
    grid = load_grid(changes={**SMALL, "compare": {"method": "dual", "reference": "supervised", "labels": 8}})
    assert grid.compare is not None
    assert (grid.compare.preset, grid.compare.labels) == ("la-8-lite", 8)
