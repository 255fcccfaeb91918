"""A trained model on disk: `model.safetensors` (tensors) and `model.yaml` (everything else, readable)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semivox.config import MethodConfig, config_error
from semivox.errors import UserError
from semivox.files import read_yaml, replacing, write_yaml
from semivox.hardware import resolve_device
from semivox.inference.quality import Calibration
from semivox.methods import create
from semivox.methods.base import Method
from semivox.nets import NetFactory
from semivox.preprocessing.plan import Plan
from semivox.version import __version__

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.yaml"
_DAMAGED = "The description of the model is damaged, or from another version of semivox"


class _Description(BaseModel):
    """The part of `model.yaml` that is needed to build the model."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal["semivox-model-1"]
    semivox: str
    method: MethodConfig
    net: dict[str, Any]
    plan: Plan
    weights_sha256: str
    calibration: Calibration = Calibration()


@dataclass(frozen=True)
class LoadedModel:
    """A method ready for inference; or several, with one plan, whose probabilities are averaged.

    Attributes:
        method: in eval mode, on `device`, prepared for predictions only, see `lean`.
        plan: how scans are resampled and normalised, with the classes and channels.
        meta: `model.yaml` as a dictionary.
        device: where the method is.
        digest: SHA-256 of the weights and of all settings that the prediction depends on.
        calibration: of its probabilities and segmentations.
        others: further runs that predict with it, see `join`.
    """

    method: Method
    plan: Plan
    meta: dict[str, Any]
    device: torch.device
    digest: str
    calibration: Calibration = field(default_factory=Calibration)
    others: tuple[LoadedModel, ...] = ()

    @property
    def runs(self) -> tuple[LoadedModel, ...]:
        """Each run alone, this one first."""
        return (replace(self, others=()), *self.others) if self.others else (self,)


def save_model(
    method: Method,
    folder: Path,
    *,
    method_name: str,
    options: Mapping[str, Any],
    net: Mapping[str, Any],
    plan: Plan,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights and their description into `folder`; a pair that belongs together or nothing usable.

    Args:
        method: the trained method.
        folder: the run folder.
        method_name: registered name of the method.
        options: the method's own options.
        net: arguments of `NetFactory`.
        plan: the plan it was trained with; stored whole.
        extra: further entries of `model.yaml`, e.g. `predict` (sliding-window defaults) and `checkpoint` (how
            the weights were chosen).
    """
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in method.state_dict().items()
    }
    with replacing(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
        sha256 = _sha256(temporary)
    description = {
        "format": "semivox-model-1",
        "semivox": __version__,
        "method": {"name": method_name, "options": dict(options)},
        "net": dict(net),
        "labels": dict(zip(plan.class_names, plan.class_values, strict=True)),
        "channels": list(plan.channels),
        "weights_sha256": sha256,
        **(extra or {}),
        "plan": plan.model_dump(mode="json"),
    }
    write_yaml(folder / DESCRIPTION, description)


def load_model(folder: Path, device: str = "auto") -> LoadedModel:
    """Restore a model for inference; nothing is unpickled.

    Args:
        folder: a run folder, or any folder with the two files.
        device: `auto` (a GPU if there is one), `cpu`, `gpu` or `cuda:1`.

    Raises:
        UserError: missing, damaged or inconsistent files, or a device that this machine does not have.
    """
    target = resolve_device(device)
    description, meta, tensors = _opened(folder)
    try:
        net = NetFactory(**description.net)
    except TypeError as error:
        expected = "in_channels, num_classes, width, norm, dropout"
        do = f"use semivox {description.semivox}, which wrote it"
        raise UserError(_DAMAGED, f"net: {description.net}", expected, do, folder / DESCRIPTION) from error
    method = create(description.method.name, description.method.options, net)
    _restore(method, tensors, folder / WEIGHTS)
    lean(method.eval(), target)
    digest = _digest(description)
    return LoadedModel(method, description.plan, meta, target, digest, description.calibration)


def start_from(method: Method, folder: Path, plan: Plan) -> None:
    """Copy the weights of a run into a method with the same networks, which is to be trained with `plan`.

    Raises:
        UserError: no usable model there, or one with other classes, channels or networks.
    """
    description, _, tensors = _opened(folder)
    for name in ("channels", "class_names"):
        found, wanted = getattr(description.plan, name), getattr(plan, name)
        if found != wanted:
            what, do = (
                f"The run to start from has other {name}",
                "name a run of this data set, or leave out --init",
            )
            raise UserError(what, ", ".join(found), ", ".join(wanted), do, folder)
    _restore(method, tensors, folder / WEIGHTS, "use --method and settings of that run, or leave out --init")


def _opened(folder: Path) -> tuple[_Description, dict[str, Any], dict[str, Tensor]]:
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            do = "name the folder of a finished run; `semivox train` resumes an unfinished one"
            expected = f"{DESCRIPTION} and {WEIGHTS}, written at the end of a training"
            raise UserError("There is no trained model in this folder", f"no {name}", expected, do, folder)
    meta = read_yaml(folder / DESCRIPTION)
    description = _parse(meta, folder / DESCRIPTION)
    return description, meta, _read_weights(folder / WEIGHTS, description.weights_sha256)


def join(models: Sequence[LoadedModel], names: Sequence[object]) -> LoadedModel:
    """Make one model of several runs, e.g. the folds of a cross-validation: the mean of their probabilities.

    Their temperatures are averaged (geometric mean), their validation cases judged together; a clean-up stays
    where more than half of them have it.

    Args:
        models: from `load_model`.
        names: of their folders, for messages.

    Raises:
        UserError: runs whose scans, classes or working grids differ.
    """
    first, *others = models
    if not others:
        return first
    for model, name in zip(others, names[1:], strict=True):
        _check_same(first.plan, model.plan, str(names[0]), str(name))
    all_of = [model.calibration for model in models]
    figures = set.intersection(*(set(one.figures) for one in all_of))
    rules = Counter(pair for one in all_of for pair in one.postprocess.items())
    pooled = Calibration(
        temperature=math.exp(sum(math.log(one.temperature) for one in all_of) / len(models)),
        postprocess={name: rule for (name, rule), count in rules.items() if 2 * count > len(models)},
        volumes=first.calibration.volumes,
        figures={name: sum((one.figures[name] for one in all_of), ()) for name in sorted(figures)},
        dice=sum((one.dice for one in all_of), ()) if figures else (),
    )
    digest = hashlib.sha256("".join(model.digest for model in models).encode()).hexdigest()
    return replace(first, digest=digest, calibration=pooled, others=tuple(others))


def _check_same(first: Plan, other: Plan, name: str, its: str) -> None:
    """Refuse plans that differ in more than what they were measured on."""
    reasons = {"dataset", "fingerprint", "reasons", "grids", "fidelity", "grid", "one_piece", "memory_gb"}
    wanted, found = (plan.model_dump(mode="json", exclude=reasons) for plan in (first, other))
    if differing := [key for key in wanted if wanted[key] != found[key]]:
        key = differing[0]
        raise UserError(
            "The runs do not fit together",
            f"{key}: {found[key]} in {its}",
            f"{key}: {wanted[key]} as in {name}",
            "name runs that were trained on one workspace, e.g. its folds",
        )


def lean(method: nn.Module, device: torch.device) -> None:
    """Prepare a method in eval mode for predictions, in place; it cannot be trained or saved afterwards.

    A batch normalisation that follows a convolution is folded into its weights: with fixed statistics both
    are one linear map. Convolution weights get the layout in which CPUs and tensor cores compute fastest.
    """
    for module in list(method.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    method.to(device)
    if device.type in ("cpu", "cuda"):
        for parameter in method.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def _fold(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        conv, norm = layers[index], layers[index + 1]
        if not (isinstance(norm, nn.BatchNorm3d) and norm.track_running_stats):
            continue
        if isinstance(conv, nn.Conv3d | nn.ConvTranspose3d):
            transposed = isinstance(conv, nn.ConvTranspose3d)
            layers[index] = fuse_conv_bn_eval(conv, norm, transpose=transposed)
            layers[index + 1] = nn.Identity()


def _parse(meta: Any, path: Path) -> _Description:
    if isinstance(meta, dict) and isinstance(meta.get("plan"), dict):
        meta["plan"].pop("final_patch", None)  # of version 0.1, where only training used it
    try:
        return _Description.model_validate(meta)
    except ValidationError as error:
        problem = config_error(error, _Description)
        do = "restore the file from a backup, or write it anew: `semivox train` with the run's arguments"
        raise UserError(_DAMAGED, f"{problem.what}: {problem.found}", problem.expected, do, path) from error


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        if _sha256(path) == sha256:
            return dict(load_file(path))
        found = "content that differs from what was saved"
    except (SafetensorError, OSError) as error:
        found = str(error)
    expected = f"the file that {DESCRIPTION} beside it describes"
    do = "copy both files again, or write them anew: `semivox train` with the run's arguments"
    raise UserError("The weights are damaged", found, expected, do, path)


def _restore(
    method: Method, tensors: Mapping[str, Tensor], path: Path, do: str = f"undo changes in {DESCRIPTION}"
) -> None:
    """Load the weights; name the first tensor that does not fit."""
    wanted = {name: tuple(tensor.shape) for name, tensor in method.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            what = "The weights do not fit the model that they are for"
            found, expected = stored.get(name, "missing"), wanted.get(name, "no such tensor")
            raise UserError(what, f"{name}: {found}", f"{name}: {expected}", do, path)
    method.load_state_dict(dict(tensors))


def _digest(description: _Description) -> str:
    settings = {
        "method": description.method.model_dump(mode="json"),
        "net": description.net,
        "plan": description.plan.model_dump(mode="json", exclude={"fingerprint", "reasons"}),
        "weights": description.weights_sha256,
    }
    if description.calibration != Calibration():
        settings["calibration"] = description.calibration.model_dump(mode="json", exclude={"measured"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
