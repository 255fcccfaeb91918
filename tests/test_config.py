"""Settings: layering, messages, presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from semivox.config import Config, load_config, parse_config, preset_names
from semivox.errors import UserError
from semivox.methods import check_method


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {lr: 0.05, seed: 3}\n")
    config = load_config(preset="la-8-lite", file=file, settings=["train.seed=4"], split={"labeled": 5})
    assert config.train.lr == 0.05  # from the file
    assert config.train.seed == 4  # the setting beats the file
    assert config.split.labeled == 5  # the section beats the preset
    assert config.plan.patch == (64, 64, 48)  # from the preset
    assert config.preset == "la-8-lite"


def test_iterations_of_a_later_source_end_a_time_budget(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {budget_s: 60}\n")
    train = load_config(file=file, train={"iterations": 5}).train
    assert (train.iterations, train.budget_s) == (5, None)  # the later source wins
    file.write_text("train: {budget_s: 60, iterations: 9}\n")  # as in the config.yaml of a run
    assert load_config(file=file).train.budget_s == 60


def test_method_options_are_merged_and_none_does_not_override() -> None:
    asked = ["method.options.tau=0.7", "method.options.beta=0.6"]
    config = load_config(preset="la-8", settings=asked, split={"labeled": None})
    assert (config.method.options, config.split.labeled) == ({"tau": 0.7, "beta": 0.6}, 8)


def test_another_method_does_not_inherit_the_options(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("method: {name: dual, options: {tau: 0.7}}\n")
    assert load_config(file=file, method={"name": "dual"}).method.options == {"tau": 0.7}
    assert load_config(file=file, method={"name": "supervised"}).method.options == {}
    assert load_config(file=file, settings=["method.name=supervised"]).method.options == {}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"settings": ["train.iteration=5"]}, "did you mean iterations"),
        ({"settings": ["trian.lr=1"]}, "did you mean train"),
        ({"settings": ["net.widht=8"]}, "did you mean width"),
        ({"settings": ["train.iter=5"]}, "did you mean iterations"),
        ({"settings": ["train.lr=fast"]}, r"train\.lr"),
        ({"settings": ["plan.patch=16,16,16"]}, r"a list, e\.g\. \[16, 16, 16\]"),
        ({"settings": ["train.lr"]}, r"section\.key=value"),
        ({"preset": "la-8-lit"}, "did you mean la-8-lite"),
        ({"settings": ["split.labeled=3"], "split": {"labeled": 4}}, r"Two values for split\.labeled"),
        ({"settings": ["preset=la-8"], "preset": "lite"}, "Two values for preset"),
        ({"settings": ["method.name=dual", "method.name=bcp"]}, "Two values for"),
        ({"settings": ["train.lr=1", "train.lr=2"]}, "Two values for"),
        ({"settings": ["method.options=5", "method.options.a=1"]}, "Two values for"),
        ({"settings": ["train.lr={a: 1}"]}, r"(?s)Wrong setting: train\.lr.*valid number"),
        *(({"file": wrong}, "nknown") for wrong in ({"preset": "nonsense"}, {"methd": "dual"}, {5: 1})),
        ({"file": {"train": {"lrr": 1}}}, "did you mean lr"),
        *(({"split": wrong}, "split") for wrong in ({"fold": 1, "val": 2}, {"file": "a", "labeled": 2})),
        ({"split": {"file": "a", "folds": 3}}, "split"),
    ],
)
def test_mistakes_are_refused_by_name(given: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text) as caught:
        load_config(**given)
    assert len(str(caught.value).splitlines()) <= 10


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_survive_storage(name: str) -> None:
    config = load_config(preset=name)
    stored = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))
    assert parse_config(stored) == config


def test_the_paper_presets_are_as_published() -> None:
    for name, labels in (("la-8", 8), ("la-16", 16)):
        config = load_config(preset=name)
        assert config.split.labeled == labels
        assert config.split.val == 0
        assert config.plan.patch == (112, 112, 80)
        assert config.plan.normalisation == "none"
        assert config.predict.stride == (18, 18, 4)
        assert config.predict.weighting == "uniform"
        train = config.train
        assert (train.iterations, train.schedule, train.augment) == (6000, "step", "crop")
        assert (train.lr, train.momentum, train.weight_decay) == (0.01, 0.9, 1e-4)
        assert config.method.options == {}
        assert config.net == Config().net


LA, SLOW = ((112, 112, 80), (18, 18, 4), 8), {"lr": 0.01, "optimizer": "sgd", "weight_decay": 1e-4}
PANCREAS, BRATS = ((96, 96, 96), (16, 16, 4), 12), ((96, 96, 96), (64, 64, 64), 25)
ADAM = {"optimizer": "adam", "lr": 0.001, "weight_decay": 0.0, "schedule": "constant", "augment": "crop"}
TURNS = {**SLOW, "augment": "rotflip"}
RECIPES: list[tuple[str, str, dict[str, object], tuple[object, ...], dict[str, object]]] = [
    ("la-8-bcp", "bcp", {"fresh_optimizer": True}, LA, {**TURNS, "iterations": 17000, "schedule": "step"}),
    ("la-8-cpcl", "cpcl", {}, LA, {**TURNS, "iterations": 10000, "schedule": "poly"}),
    ("la-8-mc-net", "mc_net", {}, LA, {**TURNS, "iterations": 15000, "schedule": "constant"}),
    ("la-8-ml-rpl", "ml_rpl", {}, LA, {**TURNS, "iterations": 15000, "schedule": "constant"}),
    ("la-8-sassnet", "sassnet", {"weight": 0.015}, LA, {**TURNS, "iterations": 6000, "schedule": "step"}),
    ("la-8-sdcl", "sdcl", {}, LA, {**ADAM, "iterations": 80 * 40 + 275 * 40}),
    (
        "pancreas-12-bcp", "bcp", {"pretraining": 1800 / 6800, "neighbours": 18}, PANCREAS,
        {**ADAM, "iterations": 60 * 30 + 200 * 25},
    ),
    ("brats-25-urpc", "urpc", {}, BRATS, {**TURNS, "iterations": 30000, "schedule": "poly", "lr": 0.1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "method", "options", "data", "train"), RECIPES)
def test_the_recipes_of_other_methods(
    name: str, method: str, options: dict[str, object], data: tuple[object, ...], train: dict[str, object]
) -> None:
    """Numbers of their papers and released code; the method accepts the options."""
    config = load_config(preset=name)
    assert (config.preset, config.method.name, config.method.options) == (name, method, options)
    check_method(config.method.name, config.method.options)
    assert (config.plan.patch, config.predict.stride, config.split.labeled) == data
    assert {key: getattr(config.train, key) for key in train} == train
    assert config.net.norm == ("instance" if config.train.optimizer == "adam" else "batch")
    assert config.net.dropout == (0.0 if name == "pancreas-12-bcp" else 0.5)
    every = config.train.step_every
    assert every == (pytest.approx(2500 / 17000, abs=1e-15) if name == "la-8-bcp" else None)


def test_a_preset_on_a_base_can_be_changed_like_any_other() -> None:
    base, config = load_config(preset="pancreas-12"), load_config(preset="pancreas-12-bcp")
    assert base.method.options == {"beta": 0.6, "alpha": 80}
    assert config.plan == base.plan and config.split == base.split
    changed = load_config(preset="la-8-mc-net", method={"name": "mc_net_plus"}, train={"lr": 0.1})
    assert (changed.method.name, changed.train.iterations, changed.train.lr) == ("mc_net_plus", 15000, 0.1)


@pytest.mark.parametrize(
    "setting",
    [
        "train=50", "method=dual", "split=2", "method=[dual]", "train.lr=[1,", "train.lr=*x", "train.lr=.inf",
        "train.lr=.nan", "train.lr=", "train.lr.x=3", "train.iterations=1.5",
        "train.iterations='5'", "train.iterations=true",
        "train.seed=-1", "train.seed=4294967296", "split.seed=4294967296",
        "split.labeled=1.7", "split.labeled=1.0",
        "split.labeled=true", "split.labeled=0", "split.labeled=-2", "split.labeled=.inf", "split.folds=3",
        "split.fold=5", "net.width=true", "plan.patch=[32,32]", "plan.patch=[32,32,18]", "train.workers=-1",
        "train.device=tpu", "train.precision=true", "train.momentum=1", "plan.spacing_mm=[1,1,0]", "preset=5",
        "train={lr: 0.1, lr: 0.2}", "=3", "train..lr=3", "predict.stride=[1,1,0]",
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_by_name(setting: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(settings=[setting])
    assert setting.partition("=")[0].partition(".")[0] in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "- a\n",
        "just text\n",
        "5\n",
        "train: 50\n",
        "? [a]\n: 1\n",
        "split: {file: x, val: 1}\n",
        "train: {lr: ",
    ],
)
def test_a_file_of_another_form_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(UserError):
        load_config(file=tmp_path / "a.yaml", train={"iterations": 1})


def test_a_file_may_name_method_and_preset(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("preset: lite\nmethod: {name: supervised}\ntrain:\nnet: {width: 4}\n")
    config = load_config(file=tmp_path / "a.yaml")
    assert (config.preset, config.method.name, config.method.options) == ("lite", "supervised", {})
    assert (config.net.norm, config.net.width, config.train.lr) == ("instance", 4, 0.03)
    lite = load_config(preset="lite")
    assert load_config(settings=["preset=lite"]) == lite == load_config(file={"preset": "lite"})
    assert load_config(file=tmp_path / "a.yaml", preset="la-8").train.lr == 0.01


def test_numbers_as_people_write_them() -> None:
    assert load_config(settings=["train.lr=1e-3"]).train.lr == 1e-3
    assert load_config(settings=["train.lr=1", "train.lr=1.0"]).train.lr == 1
    assert load_config(settings=["train.precision=32"]).train.precision == "32"
    assert load_config(split={"labeled": 8.0}).split.labeled == 8


def test_another_way_to_split_replaces_that_of_the_preset() -> None:
    with_file = load_config(preset="la-8-lite", split={"file": "splits.json", "fold": 7}).split
    assert (with_file.labeled, with_file.val, with_file.fold) == (None, 0, 7)
    with_fold = load_config(preset="la-8-lite", split={"fold": 1}).split
    assert (with_fold.labeled, with_fold.val, with_fold.fold) == (8, 0, 1)
