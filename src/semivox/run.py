"""The run folder: where a run's settings, checkpoints, logs and results stand, and what may be resumed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semivox.config import Config, parse_config
from semivox.errors import UserError, shortened
from semivox.files import read_yaml, write_json, write_yaml
from semivox.manifest import Manifest
from semivox.version import __version__

_RECORDED = ("torch", "lightning", "monai", "numpy", "scipy", "nibabel", "blosc2")
_MODEL = ("model.safetensors", "model.yaml")
VALIDATION = "validation"  # folder of the segmented and scored validation cases
GROWING = ("logs", "checkpoints", "diagnosis", "pseudo")  # files appear in them while a run trains
_WRITTEN = (
    "config.yaml", "env.json", "splits.json", "plans.json", *_MODEL, "checkpoints/last.ckpt",
    "checkpoints/best.ckpt", "logs/metrics.csv", "report.html", "diagnosis/diagnosis.csv",
    "diagnosis/diagnosis.png",
)  # fmt: skip
_EXTENDED = {"train.iterations", "train.budget_s"}  # what a longer run may change
# What cannot change the result. Split and plan are compared by content, not by the settings behind them.
_UNCOMPARED: dict[str, Any] = {"preset": True, "split": True, "plan": True, "predict": {"batch"}}
_OTHER = "choose another -o folder, or --fresh to start over (this deletes the old run)"
_FREE = {"device", "precision", "workers", "log_every", "checkpoint_every", "diagnose_every"}


@dataclass(frozen=True)
class Run:
    """A self-contained, movable folder that holds one training run."""

    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "logs" / "metrics.csv"

    @property
    def diagnosis_file(self) -> Path:
        return self.folder / "diagnosis" / "diagnosis.csv"

    @property
    def manifest(self) -> Manifest:
        return Manifest(self.folder)

    @property
    def is_begun(self) -> bool:
        """Whether there is a run here that semivox began."""
        return self.config_file.exists() and self.manifest.owns(self.config_file.name)

    @property
    def is_trained(self) -> bool:
        """Whether the weights for inference have been written, which happens last."""
        return all((self.folder / name).exists() for name in _MODEL)

    def is_current(self, name: str) -> bool:
        """Whether a file made with the weights for inference is there and not older than they are."""
        file, weights = self.folder / name, self.folder / _MODEL[0]
        return file.is_file() and file.stat().st_mtime >= weights.stat().st_mtime

    def check(self, asked: Config, *others: Config, fresh: bool = False, extend: bool = False) -> None:
        """Refuse, before any scan is opened, what `start` or `resume_config` would refuse later.

        `others` are what the settings asked for may turn into when the cases are known, with other methods.
        """
        if self.folder.is_file():
            raise UserError("A file stands where a folder is needed", do="choose another", path=self.folder)
        if fresh:
            self.manifest.require_own(*_WRITTEN)
            return
        begun_with = self._stored().method.name if self.is_begun else ""
        likely = (config for config in others if config.method.name == begun_with)
        self.resume_config(next(likely, asked), extend=extend)

    def resume_config(
        self, asked: Config, made_from: Mapping[str, Any] | None = None, *, extend: bool = False
    ) -> Config:
        """Return the settings to train with: the stored ones if this run has begun, else the ones asked for.

        `train.iterations` found by a time budget is stored, so a resumed run keeps its schedule. Settings
        that cannot change the result, such as the device, are always those asked for. Nothing is written.

        `made_from` is what the run would be made from now, see `Workspace.made_from`. With `extend` more
        iterations than stored are taken, see `start`; they end a time budget.

        Raises:
            UserError: the run was begun with other settings or data, or the folder is not semivox's.
        """
        if not self.is_begun:
            self.manifest.require_own(*_WRITTEN)
            return asked
        self._check_sources(made_from)
        stored = self._stored()
        differing = _differences(_decisive(stored), _decisive(asked))
        if stored.train.budget_s is not None and stored.train.budget_s == asked.train.budget_s:
            differing.pop("train.iterations", None)
        longer = asked.train.iterations > stored.train.iterations
        if extend and longer and asked.train.budget_s is None and differing.keys() <= _EXTENDED:
            return asked
        if differing:
            pairs = (f"{key}: {old!r} stored, {new!r} asked" for key, (old, new) in differing.items())
            what, expected = "This run was begun with other settings", "the same settings, to resume"
            do = f"{_OTHER}; --extend trains for more iterations; no other setting may change with them"
            raise UserError(what, "; ".join(pairs), expected, do, self.folder)
        free = {name: getattr(asked.train, name) for name in _free_names(stored)}
        return stored.model_copy(update={"train": stored.train.model_copy(update=free)})

    def is_extended_by(self, config: Config) -> bool:
        """Whether these settings have more iterations than the run was begun with, see `resume_config`."""
        return self.is_begun and config.train.iterations > self._stored().train.iterations

    def start(self, config: Config, made_from: Mapping[str, Any] | None = None) -> None:
        """Write the resolved settings, the environment and what the run is made from.

        An extended run resumes from its last checkpoint and is no longer trained. The schedules of learning
        rate and ramps become those of the new number of iterations, so the result is not that of one run of
        that length; `run_report.json` records it.
        """
        manifest = self.manifest
        manifest.claim(*_WRITTEN)
        if made_from is not None:
            manifest.update(made_from=made_from)
        if self.is_extended_by(config):
            before, after = self._stored().train.iterations, config.train.iterations
            manifest.report("extend", iterations_before=before, iterations=after)
            for name in _MODEL:
                (self.folder / name).unlink(missing_ok=True)
        write_yaml(self.config_file, config.model_dump(mode="json"))
        write_json(self.folder / "env.json", environment())

    def _stored(self) -> Config:
        return parse_config(read_yaml(self.config_file), self.config_file)

    def _check_sources(self, made_from: Mapping[str, Any] | None) -> None:
        stored = self.manifest.read().get("made_from")
        if made_from is None or stored is None or not (changes := _changes(stored, made_from)):
            return
        what, expected = "This run was begun with other data", "the data, split and plan of the run"
        raise UserError(what, shortened(changes, 5), expected, _OTHER, self.folder)


def environment() -> dict[str, Any]:
    """Return versions and machine, for the record; nothing that identifies a person or a host."""
    from semivox.hardware import processor_name

    machine = {"platform": platform.platform(), "processor": processor_name()}
    packages = {name: version(name) for name in _RECORDED}
    return {"semivox": __version__, "python": platform.python_version(), **machine, **packages}


def _free_names(config: Config) -> set[str]:
    """Names of the training settings that cannot change the result."""
    return _FREE if config.train.selection == "val" else _FREE | {"validate_every"}


def _decisive(config: Config) -> dict[str, Any]:
    return config.model_dump(exclude={**_UNCOMPARED, "train": _free_names(config)})


def _changes(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe what differs between two results of `Workspace.made_from`; a data set may have been moved."""
    texts = []
    for key, (old, new) in _differences(dict(stored), dict(now)).items():
        section, _, name = key.partition(".")
        if section == "files":
            texts.append(f"{name} {'is new' if old is None else 'is gone' if new is None else 'has changed'}")
        elif section != "dataset":
            texts.append(f"{name}: {old or 'unused'} before, {new or 'unused'} now")
    before, after = stored.get("dataset"), now.get("dataset")
    if texts and before != after:
        texts.insert(0, f"made from {before}, not from {after}")
    return texts


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in old.keys() | new.keys():
            found |= _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
        return dict(sorted(found.items()))
    return {} if old == new else {prefix: (old, new)}
