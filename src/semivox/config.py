"""Resolve preset, YAML file, options and `--set a.b=c` to one `Config`; each is understood or refused.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from semivox.errors import UserError, shortened, unknown
from semivox.files import parse_yaml, read_yaml
from semivox.settings import (
    Config,
    MethodConfig,
    NetConfig,
    PlanConfig,
    PredictConfig,
    Settings,
    SplitConfig,
    TrainConfig,
    Triple,
)

__all__ = [
    "Config", "MethodConfig", "NetConfig", "PlanConfig", "PredictConfig", "Settings", "SplitConfig",
    "TrainConfig", "Triple", "config_error", "load_config", "overridden", "parse_config", "preset_names",
]  # fmt: skip


def preset_names() -> list[str]:
    """Return the names of the shipped presets."""
    folder = resources.files("semivox") / "presets"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_config(
    *,
    preset: str | None = None,
    file: Path | str | Mapping[str, Any] | None = None,
    settings: Sequence[str] | str = (),
    **sections: Any,
) -> Config:
    """Resolve preset, the method's own settings, YAML file, `sections` and `a.b=c` settings; the later wins.

    A preset may also be named in the file or among the settings.

    Args:
        preset: a name from `preset_names`.
        file: a YAML file with the same sections, or what it would hold as a dictionary.
        settings: an assignment such as `train.lr=0.02`, or several; the right side is YAML.
        sections: nested dictionaries, e.g. `train={"seed": 1}`; keys whose value is None are ignored.

    Raises:
        UserError: unknown preset or key (the nearest one is named), a bad value, or two different values for
            one key among `preset`, `sections` and `settings`.

    Example:
        >>> load_config(preset="lite", settings=["train.lr=0.02"], split={"labeled": 8}).train.lr
        0.02
    """
    typed = _layer(_drop_none({"preset": preset, **sections}))
    for setting in [settings] if isinstance(settings, str) else settings:
        _merge(typed, _layer(_assignment(setting)), twice=False)
    layers = [typed]
    if isinstance(file, (str, Path)):
        layers.insert(0, _layer(read_yaml(Path(file)), Path(file)))
    elif file is not None:
        layers.insert(0, _layer(file))
    chosen = next((layer["preset"] for layer in reversed(layers) if "preset" in layer), None)
    merged = {} if chosen is None else _layer(_read_preset(chosen))
    named = [layer["method"]["name"] for layer in layers if "name" in layer.get("method", {})]
    of_method = _layer(_read_method(named[-1] if named else merged.get("method", {}).get("name")))
    for layer in (of_method, *layers):
        _put(merged, layer)
    return parse_config(merged)


def parse_config(values: Mapping[str, Any], path: Path | None = None) -> Config:
    """Check a nested dictionary; problems become a `UserError` with field, value and what is allowed.

    `path` is the file that the values were read from.
    """
    split = values.get("split")
    if isinstance(split, Mapping) and split.get("labeled") == "all":
        values = {**values, "split": {**split, "labeled": None}}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Config, path) from error


def overridden(config: Config, sections: Mapping[str, Mapping[str, Any]]) -> Config:
    """Return a copy of `config` with some fields of its sections replaced, checked like all settings."""
    values = config.model_dump()
    for name, fields in sections.items():
        values[name] = {**values.get(name, {}), **fields}
    return parse_config(values)


def config_error(
    error: ValidationError, model: type[BaseModel], path: Path | None = None, *, at: str = ""
) -> UserError:
    """Turn pydantic's report on `model` into one message, naming the nearest field for a typing error.

    `at` is where the model stands, as one types it: `method.options.`.
    """
    first = error.errors()[0]
    *parents, name = [str(part) for part in first["loc"]] or ["settings"]
    what, found = at + ".".join([*parents, name]), _short(first["input"])
    if first["type"] == "extra_forbidden":
        hint = unknown("setting", name, _fields(model, parents))
        return UserError(f"Unknown setting: {what}", found, hint.expected, hint.do, path)
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    expected = "a list, e.g. [16, 16, 16]" if first["type"] == "tuple_type" else expected
    return UserError(f"Wrong setting: {what}", found, expected, "correct it, or leave it out", path)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _fields(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in (name for name in path if not name.isdigit()):
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        if not (inner := [kind for kind in kinds if issubclass(kind, BaseModel)]):
            return []
        model = inner[0]
    return list(model.model_fields)


def _read_preset(name: object) -> dict[str, Any]:
    """Return the settings of a preset over those of the preset that it names as its `base`."""
    if name not in preset_names():
        raise unknown("preset", name, preset_names())
    text = (resources.files("semivox") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    own = {**yaml.safe_load(text), "preset": name}
    merged = _read_preset(own.pop("base")) if "base" in own else {}
    _put(merged, own)
    return merged


def _read_method(name: object) -> dict[str, Any]:
    """Return the settings that a method brings along, with its name; most have none."""
    name = name or MethodConfig().name
    file = resources.files("semivox") / "presets" / "methods" / f"{name}.yaml"
    own = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {**own, "method": {"name": name}}


def _assignment(setting: str) -> dict[str, Any]:
    key, equals, value = str(setting).partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError("A --set value is malformed", setting, "section.key=value, e.g. train.lr=0.02")
    nested: Any = parse_yaml(value, f"--set {setting}")
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def _layer(values: Any, path: Path | None = None) -> dict[str, Any]:
    """Check the form of one layer, a mapping of sections that are mappings."""
    if not isinstance(values, Mapping | None):
        expected = "sections of names and values, e.g. train: {lr: 0.02}"
        raise UserError("These are no settings", _short(values), expected, path=path)
    layer: dict[str, Any] = {}
    for name, given in (values or {}).items():
        if name not in Config.model_fields:
            raise unknown("setting", name, Config.model_fields, path)
        value = given.model_dump() if isinstance(given, BaseModel) else deepcopy(given)
        if name == "preset" or isinstance(value, Mapping):
            layer[name] = value
        elif value is None:
            layer[name] = {}
        else:
            expected = f"{name}.KEY, with KEY one of {shortened(_fields(Config, [name]), 40)}"
            by_name = f"method: {{name: {value}}}, or --set method.name={value}"
            do = by_name if name == "method" else "name the key"
            raise UserError(f"Wrong setting: {name}", _short(value), expected, do, path)
    return layer


def _drop_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _drop_none(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


def _put(base: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Put `layer` over `base`, without what belongs to another method, another split or a time budget."""
    name, split = layer.get("method", {}).get("name"), layer.get("split", {})
    train = layer.get("train", {})
    if name is not None and base.get("method", {}).get("name", name) != name:
        base["method"] = {}
    if split.get("file") is not None:
        base["split"] = {}
    elif split.get("fold") is not None and "file" not in base.get("split", {}):
        base.get("split", {}).pop("val", None)
    if train.get("iterations") is not None and "budget_s" not in train:
        base.get("train", {}).pop("budget_s", None)
    _merge(base, layer)


def _merge(base: dict[str, Any], extra: Mapping[str, Any], at: str = "", *, twice: bool = True) -> None:
    """Put `extra` over `base`, section by section; unless `twice`, a key must not get another value."""
    for key, value in extra.items():
        old, here = base.get(key), f"{at}{key}"
        if isinstance(value, Mapping) and isinstance(old, dict):
            _merge(old, value, f"{here}.", twice=twice)
            continue
        if not twice and key in base and old != value:
            raise UserError(f"Two values for {here}", f"{_short(old)} and {_short(value)}", "one of them")
        base[key] = value
