"""The run folder: where a run's settings, checkpoints, logs and results stand, and what may be resumed."""

from __future__ import annotations

import platform
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from semivox.config import Config, parse_config
from semivox.errors import UserError
from semivox.files import read_json, read_yaml, write_json, write_yaml
from semivox.version import __version__

_RECORDED = ("torch", "lightning", "monai", "numpy", "scipy", "nibabel", "blosc2")
_MODEL = ("model.safetensors", "model.yaml")
_WRITTEN_BY_TRAINING = ("config.yaml", "env.json", "splits.json", "plans.json", *_MODEL)
_EXTENDED = {"train.iterations", "train.budget_s", "train.final_share"}  # what a longer run may change


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
    def is_trained(self) -> bool:
        """Whether the weights for inference have been written, which happens last."""
        return all((self.folder / name).exists() for name in _MODEL)

    def resume_config(self, asked: Config, *, extend: bool = False) -> Config:
        """Settings to go on with: the stored ones if this run has begun, else the ones asked for.

        `train.iterations` found by a time budget is stored, so a resumed run keeps its schedule.

        Args:
            asked: the settings of this call.
            extend: more iterations than stored are taken, see `start`, and another `train.final_share` with
                them; they end a time budget.

        Raises:
            UserError: when the run was begun with other settings.
        """
        if not self.config_file.exists():
            return asked
        stored = self._stored()
        differing = _differences(stored.model_dump(), asked.model_dump())
        if stored.train.budget_s is not None and stored.train.budget_s == asked.train.budget_s:
            differing.pop("train.iterations", None)
        longer = asked.train.iterations > stored.train.iterations
        if extend and longer and asked.train.budget_s is None and differing.keys() <= _EXTENDED:
            return asked
        if differing:
            raise UserError(
                "This run was begun with other settings",
                path=self.folder,
                found="; ".join(
                    f"{key}: {old!r} stored, {new!r} asked" for key, (old, new) in differing.items()
                ),
                expected="the same settings, to resume",
                do="choose another -o folder, or --fresh to start over (this deletes the old run);"
                " --extend goes on with more iterations, and only train.final_share may change with them",
            )
        return stored

    def is_extended_by(self, config: Config) -> bool:
        """Whether these settings have more iterations than the run was begun with, see `resume_config`."""
        return self.config_file.exists() and config.train.iterations > self._stored().train.iterations

    def start(self, config: Config) -> None:
        """Write the resolved settings and the environment; a run that is extended is no longer trained.

        An extended run goes on from its last checkpoint. The schedules of learning rate and ramps become
        those of the new number of iterations, so the result is not that of one run of that length;
        `run_report.json` records it.
        """
        if self.is_extended_by(config):
            before, after = self._stored().train.iterations, config.train.iterations
            write_manifest(self.folder, "extend", iterations_before=before, iterations=after)
            for name in _MODEL:
                (self.folder / name).unlink(missing_ok=True)
        write_yaml(self.config_file, config.model_dump(mode="json"))
        write_json(self.folder / "env.json", environment())

    def clear(self) -> None:
        """Delete what a training run wrote here; other files are left alone."""
        for name in ("checkpoints", "logs", "diagnosis"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in _WRITTEN_BY_TRAINING:
            (self.folder / name).unlink(missing_ok=True)

    def _stored(self) -> Config:
        return parse_config(read_yaml(self.config_file))


def environment() -> dict[str, Any]:
    """Versions and machine, for the record; nothing that identifies a person or a host."""
    packages = {}
    for name in _RECORDED:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "semivox": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        **packages,
    }


def write_manifest(folder: Path, verb: str, **facts: Any) -> None:
    """Add what a verb did to `folder/run_report.json`: one entry a verb, the newest replaces the older."""
    path = folder / "run_report.json"
    report = read_json(path) if path.exists() else {}
    report[verb] = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "semivox": __version__,
        **facts,
    }
    write_json(path, report)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in old.keys() | new.keys():
            found |= _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else str(key))
        return dict(sorted(found.items()))
    return {} if old == new else {prefix: (old, new)}
