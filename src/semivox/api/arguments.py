"""What the functions of the API accept; each argument is checked by its type before anything is read."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, SkipValidation, ValidationError, validate_call

from semivox.config import Config, MethodConfig, load_config, overridden
from semivox.errors import UserError, explained, unknown
from semivox.settings import PredictConfig

if TYPE_CHECKING:
    from semivox.inference.model import LoadedModel

Given = ParamSpec("Given")
Result = TypeVar("Result")


def _path(value: Any) -> Any:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError("a path: text or a pathlib.Path")
    text = os.fsdecode(value)
    if not text or "\0" in text:
        raise ValueError("a path without null bytes" if text else "a path that is not empty")
    if text == "~" or text.startswith("~/"):
        raise ValueError("a path with the home folder in place of ~, which only a shell understands")
    return Path(text)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


AnyPath = Annotated[Path | str, BeforeValidator(_path)]
Anything = SkipValidation[Any]
NotNegative = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=1)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
_CONFIG = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def verb(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Make `function` public: wrong arguments and known failures of the system become a `UserError`.

    An argument is checked against its annotation, strictly: no 1 for True, no 2.0 for 2, no NaN. A NumPy
    number is the number that it holds.

    Examples:
        >>> @verb
        ... def halve(number: int) -> float:
        ...     return number / 2
        >>> halve("3")
        Traceback (most recent call last):
        semivox.errors.UserError: Wrong argument of halve: number
          found:    '3'
          expected: a valid integer
    """
    names = list(inspect.signature(function).parameters)

    @cache
    def checking() -> Callable[Given, Result]:  # made by the first call: the command line needs few of them
        annotations = dict(function.__annotations__)
        function.__annotations__ = {name: kind for name, kind in annotations.items() if name != "return"}
        made = validate_call(config=_CONFIG)(function)
        function.__annotations__ = annotations
        return made

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            plain = {name: _plain(value) for name, value in kwargs.items()}
            return checking()(*map(_plain, args), **plain)
        except ValidationError as error:
            if error.title != function.__name__:
                raise
            raise _argument_error(error, names) from error
        except Exception as error:
            if (known := explained(error)) is None or known is error:
                raise
            raise known from error

    return call


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _argument_error(error: ValidationError, names: list[str]) -> UserError:
    first = error.errors()[0]
    place = first["loc"][0]
    name = names[place] if isinstance(place, int) and place < len(names) else str(place)
    if first["type"] == "unexpected_keyword_argument":
        return unknown(f"argument of {error.title}", name, names)
    if first["type"].startswith("missing") and len(first["loc"]) == 1:
        return UserError(f"{error.title} needs the argument {name}", do=f"add {name}=...")
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return UserError(f"Wrong argument of {error.title}: {name}", repr(first["input"])[:200], expected)


def optional(path: Any) -> Path | None:
    """Return a `Path`, or None for None."""
    return None if path is None else needed(path, "path")


def needed(path: Any, name: str) -> Path:
    """Return a `Path`; what is none is a `UserError`, also None."""
    try:
        return Path(_path(path))
    except ValueError as error:
        raise UserError(f"Wrong argument: {name}", repr(path)[:200], str(error)) from error


def class_values(given: Mapping[str, int] | Sequence[str] | None) -> Mapping[str, int] | None:
    """Read `NAME=VALUE` of each class, where the values are not given as a dictionary."""
    if given is None or isinstance(given, Mapping):
        return given
    result: dict[str, int] = {}
    for text in given:
        name, _, value = (part.strip() for part in text.rpartition("="))
        if not name or name in result or not re.fullmatch(r"-?\d{1,9}", value, re.ASCII) or int(value) == 0:
            expected = "NAME=VALUE, an integer other than 0, each name once"
            raise UserError("A class is malformed", text, expected, "e.g. --class liver=1")
        result[name] = int(value)
    return result


def raw_folder(data: Path | str) -> Path:
    """Return the folder of a data set; a mistyped one is noticed before anything heavy is loaded."""
    folder = Path(data)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        expected = "a folder of scans (nnU-Net raw or MSD layout) or a workspace"
        raise UserError("There is no such folder", found, expected, "check the path of the data set", folder)
    return folder


def settings(config: Any = None, preset: str | None = None, **sections: Any) -> Config:
    """Return settings given in any form, with the shorthands in `sections` on top; None is not given."""
    if not isinstance(config, Config):
        return load_config(preset=preset, file=config, **sections)
    if preset is not None:
        do = "load_config(preset=..., ...), or leave out preset"
        raise UserError("A preset does not go with settings that are resolved already", preset, do=do)
    chosen: Config = config
    for section, values in sections.items():
        given = {name: value for name, value in values.items() if value is not None}
        chosen = overridden(chosen, {section: given}) if given else chosen
    return chosen


def checked(config: Config, data: Path | str | None = None, *, training: bool = False) -> Config:
    """Check, before any scan is opened, the folder and the names: method, its options, split file, device.

    With `training` also what imports torch. `config` is returned as it is.
    """
    from semivox.methods import check_method, method_table

    if data is not None:
        raw_folder(data)
    shipped = load_config(preset=config.preset).method if config.preset else MethodConfig()
    if config.method.name not in method_table():
        raise unknown("method", config.method.name, sorted(method_table()))
    if training or config.method.options != shipped.options:
        check_method(config.method.name, config.method.options)
    if config.split.file is not None and not Path(config.split.file).is_file():
        raise UserError("There is no such split file", do="check split.file", path=config.split.file)
    if training:
        from semivox.training.runs import check

        check(config)
    return config


def loaded_model(model: Any, device: str, changes: Any) -> tuple[LoadedModel, PredictConfig]:
    """Load a run folder, or several as one, and return how it predicts, with these changes of the settings.

    A model that is loaded already stays where it is.
    """
    from semivox.inference.model import LoadedModel, join, load_model

    if not isinstance(changes, PredictConfig | Mapping | None):
        expected = "a dictionary such as {'overlap': 0.25}, or a PredictConfig"
        raise UserError("Wrong argument: config", repr(changes)[:100], expected)
    if not isinstance(model, LoadedModel):
        folders = list(model) if isinstance(model, (list, tuple)) and model else [model]
        paths = [needed(folder, "model") for folder in folders]
        model = join([load_model(path, device=device) for path in paths], paths)
    if isinstance(changes, PredictConfig):
        return model, changes
    return model, model.settings(**{str(name): value for name, value in (changes or {}).items()})
