"""Options of the commands: type, default and help come from the API's functions and from the settings."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from semivox.errors import Terminated, UserError
from semivox.progress import show_progress

if TYPE_CHECKING:
    from semivox.config import Config

DATA = "folder of scans (nnU-Net raw or MSD layout) or a workspace"
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="one setting, e.g. train.lr=0.02 (repeatable)"),
]


def number(text: str) -> int | float | str:
    """Read a whole number or another one; a word such as `all` is for the settings to judge."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text.strip().lower()


def seconds(text: str) -> float:
    """Read `90s`, `30m`, `1.5h`, or a number of minutes, as seconds."""
    match = re.fullmatch(r"\s*(\d{1,7}(?:\.\d+)?)\s*([smh]?)\s*", text, flags=re.ASCII)
    if match is None or float(match[1]) == 0:
        raise UserError("Unknown time", text, "a time such as 90s, 30m or 2h", "e.g. --budget 30m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


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
    "fold": "--fold -f", "method": "--method -m",
}  # fmt: skip
_MORE: dict[str, dict[str, Any]] = {
    "labeled": {"parser": number, "metavar": "N", "help": "number of labels, a fraction below 1, or all"},
    "budget": {"parser": seconds, "metavar": "TIME", "help": "wall time, e.g. 30m; sets the iterations"},
    "regions": {"metavar": "NAME=1,2", "help": "classes to score as one, too (default: as declared)"},
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
_TYPED = "COMMANDLINE"
_NO_OPTIONS = {"config", "preset", "method", "labeled", "progress", "bar", "say"}


@dataclass
class Call:
    """A command as typed; `call()` calls its function of the API."""

    api: str  # name of that function
    fields: Mapping[str, str]  # options that stand for settings
    given: Mapping[str, Any]  # values of all options
    context: typer.Context

    @cached_property
    def flags(self) -> dict[str, str]:
        """The options that were typed, by name, as they are written."""
        source = self.context.get_parameter_source
        options = {str(one.name): one.opts[0] for one in self.context.command.params}
        return {name: flag for name, flag in options.items() if getattr(source(name), "name", "") == _TYPED}

    @property
    def arguments(self) -> dict[str, Any]:
        """What the API function gets: values that were typed, and defaults."""
        settings = {*self.fields, *_LAYERS} if self.fields else set()
        return {
            key: value for key, value in self.given.items() if key not in settings and value not in (None, [])
        }

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The settings that were typed as options of their own, by section."""
        found: dict[str, dict[str, Any]] = {}
        for name, setting in self.fields.items():
            section, _, key = setting.partition(".")
            if (value := self.given[name]) is not None:
                found.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
        return found

    @cached_property
    def config(self) -> Config:
        """The settings, resolved."""
        from semivox.config import load_config

        layers: dict[str, Any] = {name: self.given[name] for name in _LAYERS if name in self.flags}
        return load_config(**{**layers, **self.sections})

    def __call__(self, name: str | None = None, /, **more: Any) -> Any:
        """Call the API function, or the named one, with what was typed."""
        function = of_api(name or self.api)
        known = inspect.signature(function).parameters.keys() - more.keys()
        given = {"progress": show_progress, "bar": True, **self.arguments}
        if self.fields and "config" in known:
            given["config"] = self.config
        return function(**{key: value for key, value in given.items() if key in known}, **more)

    def refuse(self, flag: str, useless: Iterable[str]) -> None:
        """Refuse options that were typed but mean nothing beside `flag`."""
        if found := sorted(self.flags[name] for name in useless if name in self.flags):
            raise UserError(f"{flag} has no use for another option", found[0], do=f"leave out {found[0]}")

    def again(self) -> list[str]:
        """Return the settings as typed, for the next command."""
        words: list[str] = []
        for name in (name for name in (*self.fields, *_LAYERS) if name in self.flags):
            flag, value = self.flags[name], self.given[name]
            values = value if isinstance(value, list) else [value]
            words += [flag] if value is True else [word for one in values for word in (flag, str(one))]
        return words


class _Late(TyperCommand):
    """A command whose options are made when somebody looks at them: the list of commands comes at once."""

    @cached_property
    def _made(self) -> Any:
        apart = typer.Typer(add_completion=False, rich_markup_mode="rich")
        apart.command(self.name)(inspect.unwrap(self.callback).build())  # type: ignore[arg-type]
        return typer.main.get_command(apart)

    params: Any = property(lambda self: self._made.params, lambda self, none: None)

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
    settings = fields or {}

    def build() -> Callable[..., None]:
        kinds = get_type_hints(function, include_extras=True)
        own = {
            name: one.replace(annotation=kinds[name], kind=one.KEYWORD_ONLY)
            for name, one in inspect.signature(function).parameters.items()
            if name != "call"
        }
        hidden = {*_NO_OPTIONS, *own, *settings, *without}
        made = [] if api is None else list(_api_options(of_api(api), hidden, {**_FLAGS, **(flags or {})}))
        made += [_setting_option(name, setting) for name, setting in settings.items()]
        made += [_parameter(name, kind, None) for name, kind in _LAYERS.items() if layers]
        made += own.values()

        def call(context: typer.Context, **given: Any) -> None:
            first = () if api is None else (Call(api, settings, given, context),)
            try:
                function(*first, **{name: given[name] for name in own})
            except KeyboardInterrupt as stop:  # which Typer would turn into 130 also after SIGTERM
                raise SystemExit(143 if isinstance(stop, Terminated) else 130) from stop

        made.append(_parameter("context", typer.Context, inspect.Parameter.empty))
        call.__annotations__ = {one.name: one.annotation for one in made}
        call.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]
        return call

    def late() -> None: ...

    late.__doc__ = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(function) or "")  # Typer keeps line breaks
    late.build = build  # type: ignore[attr-defined]
    app.command(name or function.__name__, cls=_Late)(late)


def of_api(name: str) -> Callable[..., Any]:
    """Return a function of the API, which is imported when it is needed: that takes a while."""
    from semivox import api

    function: Callable[..., Any] = getattr(api, name)
    return function


def _api_options(
    function: Callable[..., Any], hidden: set[str], flags: Mapping[str, str]
) -> Iterator[inspect.Parameter]:
    """Make an option of each parameter, with the line about it in the docstring."""
    inner, texts = inspect.unwrap(function), described(function)
    strings = {name: kind for name, kind in inner.__annotations__.items() if name != "return"}
    kinds = get_type_hints(SimpleNamespace(__annotations__=strings), inner.__globals__)
    for name, one in inspect.signature(function).parameters.items():
        if name not in hidden:
            text = texts.get(name, _HELP.get(name, ""))
            yield _option(name, kinds[name], one.default, text, flags.get(name))


def _setting_option(name: str, setting: str) -> inspect.Parameter:
    """Make an option of a field of the settings, with its description."""
    from semivox.settings import Config

    section, _, key = setting.partition(".")
    model: Any = Config.model_fields[section].annotation
    field, kind = model.model_fields[key], get_type_hints(model)[key]
    text = re.sub(r"(^|; )null: (.*)$", r" (default: \2)", field.description or "").strip().replace("`", "")
    flags = f"--{name}/--no-{name}" if field.default is True else _FLAGS.get(name)
    return _option(name, kind | None, None, text, flags)


def _option(name: str, kind: Any, default: Any, text: str, flags: str | None) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    flags = flags or (f"{flag}/--no-{flag[2:]}" if default is True else flag)
    more = {"help": text, **_MORE.get(name, {})}
    is_option = flags.startswith("-")
    option = typer.Option(*flags.split(), **more) if is_option else typer.Argument(metavar=flags, **more)
    return _parameter(name, Annotated[_plain(kind), option], default)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


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
