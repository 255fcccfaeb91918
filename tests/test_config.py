"""Settings: layering, messages, presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from semivox.config import Config, load_config, parse_config, preset_names
from semivox.errors import UserError


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {lr: 0.05, seed: 3}\n")
    config = load_config(preset="la-8-lite", file=file, settings=["train.seed=4"], split={"labeled": 5})
    assert config.train.lr == 0.05  # from the file
    assert config.train.seed == 4  # the setting beats the file
    assert config.split.labeled == 5  # the section beats the preset
    assert config.plan.patch == (64, 64, 48)  # from the preset
    assert config.preset == "la-8-lite"


def test_none_does_not_override(tmp_path: Path) -> None:
    assert load_config(preset="la-8", split={"labeled": None}).split.labeled == 8


def test_method_options_are_merged() -> None:
    config = load_config(preset="la-8", settings=["method.options.tau=0.7", "method.options.beta=0.6"])
    assert config.method.options == {"tau": 0.7, "beta": 0.6}


def test_another_method_does_not_inherit_the_options(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("method: {name: dual, options: {tau: 0.7}}\n")
    assert load_config(file=file, method={"name": "dual"}).method.options == {"tau": 0.7}
    assert load_config(file=file, method={"name": "supervised"}).method.options == {}
    assert load_config(file=file, settings=["method.name=supervised"]).method.options == {}


@pytest.mark.parametrize(
    ("setting", "hint"),
    [("train.iteration=5", "iterations"), ("trian.lr=1", "train"), ("net.widht=8", "width")],
)
def test_a_typing_error_names_the_nearest_setting(setting: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {hint}") as caught:
        load_config(settings=[setting])
    assert len(str(caught.value).splitlines()) <= 10


def test_a_wrong_value_names_the_field() -> None:
    with pytest.raises(UserError, match=r"train\.lr"):
        load_config(settings=["train.lr=fast"])


def test_a_malformed_setting_is_explained() -> None:
    with pytest.raises(UserError, match=r"section\.key=value"):
        load_config(settings=["train.lr"])


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean la-8-lite"):
        load_config(preset="la-8-lit")


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
        assert (config.train.iterations, config.train.schedule, config.train.augment) == (
            6000,
            "step",
            "crop",
        )
        assert (config.train.lr, config.train.momentum, config.train.weight_decay) == (0.01, 0.9, 1e-4)
        assert config.method.options == {}
        assert config.net == Config().net


def test_broken_yaml_is_one_message(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("train: {lr: ")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(file=file)


def test_precision_may_be_written_as_a_number() -> None:
    assert load_config(settings=["train.precision=32"]).train.precision == "32"
