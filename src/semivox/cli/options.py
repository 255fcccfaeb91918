"""Options of the commands: type, default and help come from the API's functions and from the settings."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from semivox.cli.values import labels, seconds
from semivox.errors import Terminated
from semivox.progress import show_progress

if TYPE_CHECKING:
    from semivox.config import Config

DATA = "folder of scans (nnU-Net raw or MSD layout) or a workspace"
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="one setting, e.g. train.lr=0.02 (repeatable)"),
]

# Options that stand for settings.
SPLIT = {
    "labeled": "split.labeled", "val": "split.val", "split_seed": "split.seed", "split_file": "split.file",
    "fold": "split.fold", "trust_image_geometry": "plan.trust_image_geometry",
}  # fmt: skip
TRAIN = {"method": "method.name", "budget": "train.budget_s"} | {
    name: f"train.{name}" for name in ("iterations", "seed", "device", "precision", "workers", "init")
}
WINDOW = {
    name: f"predict.{name}"
    for name in ("window", "stride", "overlap", "weighting", "batch", "tta", "postprocess")
}
_LAYERS: dict[str, Any] = {
    "preset": Annotated[str | None, typer.Option("--preset", "-p", help="shipped settings, e.g. lite")],
    "file": Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings")],
    "settings": SetOption,
}
_FLAGS = {
    "data": "--data -d", "out": "--output -o", "model": "--model -m", "labeled": "--labeled -l",
    "fold": "--fold -f", "method": "--method -m", "settings": "--set", "file": "--config",
}  # fmt: skip
_MORE: dict[str, dict[str, Any]] = {
    "labeled": {"parser": labels, "metavar": "N", "help": "number of labels, a fraction below 1, or all"},
    "budget": {"parser": seconds, "metavar": "TIME", "help": "wall time, e.g. 30m; sets the iterations"},
    "regions": {"metavar": "NAME=1,2"},
    "classes": {"metavar": "NAME=VALUE"},
    "origin": {"case_sensitive": False},
}
_HELP = {
    "data": DATA,
    "work": "workspace for plan and prepared scans (default: semivox-work/NAME)",
    "fresh": "start over: delete what an earlier call wrote",
    "workers": "worker processes; 0: work in this process",
    "device": "auto, cpu or gpu",
    "series": "DICOM series to take: its number, description or UID",
    "trust_image_geometry": "where affines disagree, use that of the (first) image if the shapes agree",
}
_NO_OPTIONS = {"config", "preset", "method", "labeled", "progress", "bar", "say"}


@dataclass
class Call:
    """A command as typed."""

    function: Callable[..., Any]  # of the API
    arguments: Mapping[str, Any]  # of it, that were typed
    typed: Mapping[str, Any]  # options that stand for settings
    fields: Mapping[str, str]  # which setting each of these is
    flags: Mapping[str, str]  # of all options

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The settings that were typed as options of their own, by section."""
        found: dict[str, dict[str, Any]] = {}
        for name, field in self.fields.items():
            section, _, key = field.partition(".")
            if (value := self.typed.get(name)) is not None:
                found.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
        return found

    @cached_property
    def config(self) -> Config:
        """The settings, resolved."""
        from semivox.config import load_config

        layers = {name: value for name in _LAYERS if (value := self.typed.get(name))}
        given: dict[str, Any] = {**layers, **self.sections}
        return load_config(**given)

    def __call__(self, name: str | None = None, /, **more: Any) -> Any:
        """Call the API function, or the named one, with what was typed."""
        function = self.function if name is None else of_api(name)
        known = inspect.signature(function).parameters
        shown = {"progress": show_progress, "bar": True}
        given = {name: value for name, value in {**shown, **self.arguments}.items() if name in known} | more
        if self.fields and "config" in known and "config" not in given:
            given["config"] = self.config
        return function(**given)

    def again(self) -> list[str]:
        """Return the settings as typed, for the next command."""
        words: list[str] = []
        for name in (*self.fields, *_LAYERS):
            value = self.typed.get(name)
            if value in (None, [], False):
                continue
            flag = self.flags[name].split()[0]
            values = [] if value is True else value if isinstance(value, list) else [value]
            words += [word for one in values for word in (flag, str(one))] or [flag]
        return words


class _Late(TyperCommand):
    """A command whose options are made when somebody looks at them: the list of commands comes at once."""

    @cached_property
    def _made(self) -> Any:
        build = inspect.unwrap(self.callback).build  # type: ignore[arg-type]
        apart = typer.Typer(add_completion=False, rich_markup_mode="rich")
        apart.command(self.name)(build())
        return typer.main.get_command(apart)

    @property
    def params(self) -> Any:
        return self._made.params

    @params.setter
    def params(self, none: object) -> None:
        pass

    def invoke(self, ctx: Any) -> Any:
        return self._made.invoke(ctx)


def command(
    app: typer.Typer,
    function: Callable[..., None],
    name: str | None = None,
    *,
    api: str | None = None,
    fields: Mapping[str, str] | None = None,
    layers: bool = False,
    without: Sequence[str] = (),
    flags: Mapping[str, str] | None = None,
) -> None:
    """Add a command: `function(call, ...)` shows what `call()`, the API function, returns.

    Args:
        app: to add it to.
        function: with the command's own options.
        name: default: the function's.
        api: function of the API whose parameters become options, with the help of its docstring.
        fields: options that stand for settings, e.g. `{"seed": "train.seed"}`.
        layers: also take --preset, --config and --set.
        without: parameters of `api` that are no options.
        flags: of parameters whose name is not their flag; a flag without dashes is an argument.
    """
    fields, flags = fields or {}, {**_FLAGS, **(flags or {})}

    def build() -> Callable[..., None]:
        kinds = get_type_hints(function, include_extras=True)
        own = {
            one.name: one.replace(annotation=kinds[one.name])
            for one in inspect.signature(function).parameters.values()
            if one.name != "call"
        }
        hidden = _NO_OPTIONS | {*own, *fields, *without}
        theirs = {} if api is None else {one.name: one for one in _api_options(of_api(api), hidden, flags)}
        typed = {name: _setting_option(name, setting) for name, setting in fields.items()}
        if layers:
            typed |= {key: _parameter(key, kind, None) for key, kind in _LAYERS.items()}
        parameters = {**theirs, **typed, **own}

        def call(**given: Any) -> None:
            settings = {key: given[key] for key in typed}
            arguments = {
                key: given[key] for key, one in theirs.items() if given[key] not in (None, [], one.default)
            }
            shown = {key: flags.get(key, "--" + key.replace("_", "-")) for key in parameters}
            first = () if api is None else (Call(of_api(api), arguments, settings, fields, shown),)
            try:
                function(*first, **{key: given[key] for key in own})
            except KeyboardInterrupt as stop:  # which Typer would turn into 130 also after SIGTERM
                raise SystemExit(143 if isinstance(stop, Terminated) else 130) from stop

        call.__doc__ = function.__doc__
        call.__annotations__ = {one.name: one.annotation for one in parameters.values()}
        order = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters.values()]
        call.__signature__ = inspect.Signature(order)  # type: ignore[attr-defined]
        return call

    def late() -> None: ...

    late.__doc__, late.build = function.__doc__, build  # type: ignore[attr-defined]
    app.command(name or function.__name__, cls=_Late)(late)


def of_api(name: str) -> Callable[..., Any]:
    """Return a function of the API, which is imported when it is needed: that takes a while."""
    from semivox import api

    function: Callable[..., Any] = getattr(api, name)
    return function


def _api_options(
    function: Callable[..., Any], hidden: set[str], flags: Mapping[str, str]
) -> Iterable[inspect.Parameter]:
    """Make an option of each parameter, with the line about it in the docstring."""
    inner, texts = inspect.unwrap(function), described(function)
    strings = {name: kind for name, kind in inner.__annotations__.items() if name not in hidden | {"return"}}
    kinds = get_type_hints(SimpleNamespace(__annotations__=strings), inner.__globals__)
    for one in inspect.signature(function).parameters.values():
        if one.name in kinds and one.kind is not one.VAR_KEYWORD:
            text = texts.get(one.name, _HELP.get(one.name, ""))
            yield _option(one.name, kinds[one.name], one.default, text, flags.get(one.name))


def _setting_option(name: str, setting: str) -> inspect.Parameter:
    """Make an option of a field of the settings, with its description."""
    from semivox.settings import Config

    section, _, key = setting.partition(".")
    model: Any = Config.model_fields[section].annotation
    field, kind = model.model_fields[key], get_type_hints(model)[key]
    text = re.sub(r"(^|; )null: (.*)$", r" (default: \2)", field.description or "").strip()
    return _option(name, kind | None, None, text, _FLAGS.get(name) or _flag(name, field.default is True))


def _option(name: str, kind: Any, default: Any, text: str, flags: str | None) -> inspect.Parameter:
    flags = flags or _flag(name, default is True)
    more = {"help": text, **_MORE.get(name, {})}
    is_option = flags.startswith("-")
    option = typer.Option(*flags.split(), **more) if is_option else typer.Argument(metavar=flags, **more)
    return _parameter(name, Annotated[_plain(kind), option], default)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _flag(name: str, negative: bool) -> str:
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if negative else f"--{flag}"


def _plain(kind: Any) -> Any:
    """Return the type that a terminal can give: paths for paths or models, numbers for numbers."""
    if kind is Any:
        return list[Path]
    if kind == tuple[str, ...] or get_origin(kind) is Mapping:
        return list[str]
    if get_origin(kind) not in (Union, UnionType):
        return kind
    parts = [_plain(part) for part in get_args(kind) if part is not type(None)]
    one = next((simple for simple in (Path, float) if simple in parts), parts[0])
    return one | None if type(None) in get_args(kind) else one


def described(function: Callable[..., Any]) -> dict[str, str]:
    """Return what a docstring says about each argument."""
    _, _, part = (inspect.getdoc(function) or "").partition("Args:\n")
    arguments = r"^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)"
    found: dict[str, str] = {}
    for names, text in re.findall(arguments, part.partition("\n\n")[0], re.M):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()).rstrip(".").replace("`", ""))
    return found


def next_command(*words: object, note: str = "") -> None:
    """Show the command to type next, quoted so that it can be pasted."""
    text = shlex.join(["semivox", *map(str, words)])
    typer.echo(f"next: {text}" + (f"   # {note}" if note else ""))


def same_command() -> None:
    """Show this very command as the next one: it resumes."""
    next_command(*sys.argv[1:])
