"""A trained model on disk: `model.safetensors` (tensors) and `model.yaml` (everything else, readable)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semivox.config import MethodConfig, PredictConfig, config_error
from semivox.errors import UserError
from semivox.files import read_yaml, replacing, write_yaml
from semivox.hardware import prefers_bf16, resolve_device
from semivox.inference.quality import Calibration
from semivox.methods import create
from semivox.methods.base import Method
from semivox.nets import NetFactory
from semivox.preprocessing.plan import Plan
from semivox.version import __version__

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.yaml"


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
    """A method ready for inference; or several, with one plan, whose probabilities are averaged."""

    method: Method  # in eval mode, prepared for predictions only, see `lean`
    plan: Plan  # how scans are resampled and normalised, with the classes and channels
    meta: dict[str, Any]  # `model.yaml`
    device: torch.device  # where the method is
    digest: str  # SHA-256 of the weights and of all settings that the prediction depends on
    calibration: Calibration = field(default_factory=Calibration)
    others: tuple[LoadedModel, ...] = ()  # further runs that predict with it, see `join`

    @property
    def runs(self) -> tuple[LoadedModel, ...]:
        """Each run alone, this one first."""
        return (replace(self, others=()), *self.others) if self.others else (self,)

    @property
    def precision(self) -> Literal["bf16", "32"]:
        """The arithmetic of the networks: bf16 where the device is quicker with it."""
        return "bf16" if prefers_bf16(self.device) else "32"

    def settings(self, **changes: Any) -> PredictConfig:
        """Return the stored settings with changes (None: no change); a stride or overlap asks for patches.

        An overlap takes the place of a stored stride.

        Raises:
            UserError: a value that is not allowed, or stride and overlap together.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if asked := {"stride", "overlap"} & set(given):
            given = {"window": "patch", "stride": None, **given}
        if len(asked) == 2:
            found = f"stride {given['stride']} and overlap {given['overlap']}"
            raise UserError("Stride and overlap exclude each other", found, do="leave out one of them")
        try:
            return PredictConfig.model_validate({**self.meta.get("predict", {}), **given})
        except ValidationError as error:
            raise config_error(error, PredictConfig) from error


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

    `net` are the arguments of `NetFactory`; `extra` are further entries of `model.yaml`, e.g. `predict`
    (sliding-window defaults) and `checkpoint` (how the weights were chosen).
    """
    state = method.state_dict().items()
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state}
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
    about, meta, tensors = _opened(folder)
    try:
        net = NetFactory(**about.net)
    except TypeError as error:
        expected = f"what semivox {about.semivox} wrote"
        raise _damaged(folder / DESCRIPTION, f"net: {about.net}", expected) from error
    method = create(about.method.name, about.method.options, net)
    restore(method, tensors, folder / WEIGHTS, f"undo changes in {DESCRIPTION}")
    lean(method.eval(), target)
    return LoadedModel(method, about.plan, meta, target, _digest(about), about.calibration)


def start_from(method: Method, folder: Path, plan: Plan) -> None:
    """Copy the weights of a run into a method with the same networks, which is to be trained with `plan`.

    Raises:
        UserError: no usable model there, or one with other classes, channels or networks.
    """
    about, _, tensors = _opened(folder)
    for name in ("channels", "class_names"):
        found, wanted = getattr(about.plan, name), getattr(plan, name)
        if found != wanted:
            what = f"The run to start from has other {name}"
            do = "name a run of this data set, or leave out --init"
            raise UserError(what, ", ".join(found), ", ".join(wanted), do, folder)
    restore(method, tensors, folder / WEIGHTS, "use --method and settings of that run, or leave out --init")


def join(models: Sequence[LoadedModel], names: Sequence[object]) -> LoadedModel:
    """Make one model of several runs, e.g. the folds of a cross-validation: the mean of their probabilities.

    `names` are those of their folders, for messages. Runs whose channels, classes, working grids or
    normalisations differ are a `UserError`; their networks and patches may differ.
    """
    first, *others = models
    if not others:
        return first
    wanted, *shared = [{"class_names": one.plan.class_names, **one.plan.grid_settings()} for one in models]
    for found, name in zip(shared, names[1:], strict=True):
        if key := next((key for key in wanted if wanted[key] != found[key]), None):
            do = "name runs that were trained on one workspace, e.g. its folds"
            here, there = f"{key}: {found[key]} in {name}", f"{key}: {wanted[key]} as in {names[0]}"
            raise UserError("The runs do not fit together", here, there, do)
    digest = hashlib.sha256("".join(model.digest for model in models).encode()).hexdigest()
    pooled = Calibration.pooled([model.calibration for model in models])
    return replace(first, digest=digest, calibration=pooled, others=tuple(others))


def lean(method: nn.Module, device: torch.device) -> None:
    """Prepare a method in eval mode for predictions, in place; it cannot be trained or saved afterwards.

    A batch normalisation that follows a convolution is folded into its weights: with fixed statistics both
    are one linear map. Convolution weights get the layout in which CPUs and tensor cores compute fastest.
    """
    for layers in [module for module in method.modules() if isinstance(module, nn.Sequential)]:
        for index, (conv, norm) in enumerate(pairwise(list(layers))):
            if not (isinstance(norm, nn.BatchNorm3d) and norm.track_running_stats):
                continue
            if isinstance(conv, nn.Conv3d | nn.ConvTranspose3d):
                transposed = isinstance(conv, nn.ConvTranspose3d)
                layers[index] = fuse_conv_bn_eval(conv, norm, transpose=transposed)
                layers[index + 1] = nn.Identity()
    method.to(device)
    if device.type in ("cpu", "cuda"):
        for parameter in method.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def require_model(folder: Path) -> None:
    """Raise a `UserError` if one of the two files of a model is missing."""
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            what = "There is no trained model in this folder"
            do = "name the folder of a finished run; `semivox train` resumes an unfinished one"
            raise UserError(what, f"no {name}", f"{DESCRIPTION} and {WEIGHTS}", do, folder)


def _opened(folder: Path) -> tuple[_Description, dict[str, Any], dict[str, Tensor]]:
    """Read both files of a model and check that they belong together."""
    require_model(folder)
    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    meta = read_yaml(description)
    try:
        about = _Description.model_validate(meta)
    except ValidationError as error:
        problem = config_error(error, _Description)
        raise _damaged(description, f"{problem.what}: {problem.found}", problem.expected) from error
    try:
        if _sha256(weights) == about.weights_sha256:
            return about, meta, load_file(weights)
        found = "content that differs from what was saved"
    except (SafetensorError, OSError) as error:
        found = str(error)
    raise _damaged(weights, found, f"the file that {DESCRIPTION} beside it describes")


def _damaged(file: Path, found: str, expected: object) -> UserError:
    what = "A file of the model is damaged, or from another version of semivox"
    do = "copy both files again, or write them anew: `semivox train` with the run's arguments"
    return UserError(what, found, expected, do, file)


def restore(method: Method, tensors: Mapping[str, Tensor], path: Path, do: str) -> None:
    """Load weights; a `UserError` about the file, with this advice, names the first that does not fit."""
    try:
        method.load_state_dict(dict(tensors))
    except RuntimeError as error:
        found = str(error).split("\n\t")[1]
        raise UserError(
            "The weights do not fit the model that they are for", found, do=do, path=path
        ) from error


def _digest(about: _Description) -> str:
    settings = {
        "method": about.method.model_dump(mode="json"),
        "net": about.net,
        "plan": about.plan.model_dump(mode="json", exclude={"fingerprint", "reasons"}),
        "weights": about.weights_sha256,
    }
    if about.calibration != Calibration():
        settings["calibration"] = about.calibration.model_dump(mode="json", exclude={"measured"})
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
