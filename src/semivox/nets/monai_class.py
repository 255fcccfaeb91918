"""How a class of MONAI becomes a network: its arguments, and by trial what patches it takes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from semivox.errors import UserError, shortened, unknown
from semivox.nets.blocks import Triple, kernels_for

PREFIX = "monai:"
PATCH: Triple = (96, 96, 96)  # of a network that takes one size only, where no plan says which
MOST_CHANNELS = 320
_CHANNELS = {"in_channels", "out_channels"}
FROM_PLAN = ("in_channels", "out_channels", "spatial_dims", "img_size")
SEGMENTERS = (  # classes of MONAI that are for this; others are tried, too
    "AttentionUnet", "BasicUNet", "BasicUNetPlusPlus", "DAF3D", "DynUNet", "FlexibleUNet", "HighResNet",
    "MedNeXt", "SegResNet", "SegResNetDS", "SwinUNETR", "UNETR", "UNet", "VNet",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What decides a network of MONAI, on its own grid: that of the blocks of the plan's stem."""

    name: str  # of the class
    inputs: int
    outputs: int
    width: int
    stem: Triple
    strides: tuple[Triple, ...]
    options: str  # JSON
    sides: Triple = PATCH  # where the class wants to know them

    @property
    def kind(self) -> type[nn.Module]:
        """The class, from its name."""
        found = getattr(import_module("monai.networks.nets"), self.name, None)
        if not (inspect.isclass(found) and issubclass(found, nn.Module)):
            raise unknown("network of MONAI", self.name, SEGMENTERS)
        if not _known(found) >= _CHANNELS:
            raise self.refused(f"it takes {shortened(sorted(_known(found)), 8)}")
        return found

    @property
    def segments(self) -> bool:
        """Whether the class, also by another of its names, is known to be for segmentation."""
        return getattr(getattr(import_module("monai.networks.nets"), self.name), "__name__", "") in SEGMENTERS

    @property
    def one_size(self) -> bool:
        """Whether the network takes patches of one size only."""
        return "img_size" in _known(self.kind)

    def refused(self, found: object) -> UserError:
        """Say that the options make no network for semivox, or that the class is none, and why."""
        if self.segments:
            given = "its defaults" if self.options == "{}" else f"net.options={self.options}"
            what = f"{PREFIX}{self.name} does not work with {given}"
            return UserError(what, found, do="change net.options, or choose another network")
        return UserError(
            f"{PREFIX}{self.name} is no network for the segmentation of 3D images",
            found,
            "a class of monai.networks.nets that turns 3D images into logits of their size",
            f"choose one of {', '.join(SEGMENTERS)}",
        )

    def arguments(self) -> dict[str, Any]:
        """Check the options; take from the plan what the class requires of it."""
        parameters, given = inspect.signature(self.kind).parameters, _tuples(json.loads(self.options))
        free = [name for name in parameters if name not in FROM_PLAN]
        if other := next((name for name in given if name not in free), None):
            if other in FROM_PLAN:
                what = f"net.options.{other} of {PREFIX}{self.name} comes from the data set and its plan"
                raise UserError(what, given[other], "no such option", "leave it out")
            raise unknown(f"option of {PREFIX}{self.name}", other, free)
        own = {
            "in_channels": self.inputs,
            "out_channels": self.outputs,
            "spatial_dims": 3,
            "img_size": self.sides,
        }
        levels = self.levels(between="upsample_kernel_size" not in parameters)
        filled = {name: value for name, value in own.items() if name in parameters}
        for name, parameter in parameters.items():
            required = parameter.default is parameter.empty and parameter.kind not in (
                parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD,
            )  # fmt: skip
            if name in given:
                filled[name] = given[name]
            elif required and name in levels:
                filled[name] = levels[name]
            elif required and name not in filled:
                what = f"{PREFIX}{self.name} needs the option {name}"
                if not self.segments:
                    raise self.refused(what)
                do = f"--set net.options.{name}=..., as the documentation of MONAI says"
                raise UserError(what, None, parameter.annotation, do)
        return filled

    def levels(self, *, between: bool) -> dict[str, Any]:
        """Describe the levels of the plan, as classes with these names of parameters want it.

        Args:
            between: `strides` are those between the levels; else the first level has one, too.
        """
        steps, counts = self.strides, range(len(self.strides) + 1)
        return {
            "channels": tuple(min(MOST_CHANNELS, self.width * 2**level) for level in counts),
            "kernel_size": tuple(kernels_for(steps, self.stem)),
            "upsample_kernel_size": steps,
            "strides": steps if between else ((1, 1, 1), *steps),
        }

    def build(self) -> nn.Module:
        """Build the network on the default device; on meta also where a class reads values as it is built.

        Raises:
            UserError: what MONAI does not accept, or a package that it lacks.
        """
        kind, arguments = self.kind, self.arguments()
        try:
            return kind(**arguments)
        except Exception as error:
            if torch.get_default_device().type == "meta":
                with torch.device("cpu"):
                    return self.build().to("meta")
            if type(error).__name__ == "OptionalImportError":
                what = f"{PREFIX}{self.name} needs a package that is not installed"
                raise UserError(what, str(error).partition("\n")[0], do="install it with pip") from error
            raise self.refused(str(error).partition("\n")[0]) from error


def _known(kind: type) -> set[str]:
    try:
        return set(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        return set()


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def scales_of(output: Any) -> list[Tensor]:
    """Take what a network returns as logits, fine to coarse; none if it is something else."""
    if isinstance(output, Tensor):
        return list(output.unbind(1)) if output.ndim == 6 else [output]
    parts = list(output) if isinstance(output, list | tuple) else []
    if not all(isinstance(part, Tensor) and part.ndim == 5 for part in parts):
        return []
    falling = all(here.shape[2] > below.shape[2] for here, below in pairwise(parts))
    return parts if falling else []


@lru_cache(maxsize=8)
def _on_meta(recipe: Recipe) -> nn.Module:
    with torch.device("meta"), torch.random.fork_rng([]):
        return recipe.build()


@dataclass(frozen=True)
class Trial:
    """What a network makes of a patch."""

    scales: int = 1
    widest: float = 0.0  # its largest map, in values for each position of the patch
    problem: str = ""  # why it makes nothing of it


@lru_cache(maxsize=256)
def trial(recipe: Recipe, sides: Triple, batch: int = 1, training: bool = False) -> Trial:
    """Pass a patch without values through a network without memory for its weights."""
    module, sizes = _on_meta(replace(recipe, sides=sides) if recipe.one_size else recipe), []

    def measure(layer: nn.Module, inputs: Any, output: Any) -> None:
        sizes.append(output.numel() if isinstance(output, Tensor) else 0)

    hooks = [layer.register_forward_hook(measure) for layer in module.modules()]
    try:
        with torch.device("meta"), torch.random.fork_rng([]), torch.no_grad():
            output = module.train(training)(torch.empty(batch, recipe.inputs, *sides))
    except Exception as error:  # whatever MONAI raises
        return Trial(problem=str(error).partition("\n")[0])
    finally:
        for hook in hooks:
            hook.remove()
    scales, wanted = scales_of(output), (batch, recipe.outputs, *sides)
    if not scales or tuple(scales[0].shape) != wanted:
        shapes = (
            [tuple(one.shape) for one in output] if isinstance(output, list) else getattr(output, "shape", "")
        )
        found = f"{type(output).__name__} {tuple(shapes) if isinstance(output, Tensor) else shapes}"
        return Trial(problem=f"it returns {found} for a patch of {sides}, not {wanted}")
    return Trial(len(scales), max(sizes) / batch / prod(sides))


def multiples(parts: Sequence[int], sides: Sequence[int] = PATCH) -> Triple:
    """Round the sides of a patch up to multiples of `parts`."""
    x, y, z = (-(-side // part) * part for side, part in zip(sides, parts, strict=True))
    return x, y, z


@lru_cache(maxsize=64)
def divisor_of(recipe: Recipe) -> Triple:
    """Find by trial what the sides of a patch have to be multiples of, a power of two along each axis."""

    def fits(parts: Sequence[int]) -> bool:
        x, y, z = (part * (-(-96 // part) | 1) for part in parts)  # odd multiples of a part, from 96 on
        return not trial(recipe, (x, y, z)).problem

    part = next((part for part in (16, 32, 64) if fits([part] * 3)), None)
    if part is None:
        raise recipe.refused(trial(recipe, PATCH).problem)
    while part > 1 and fits([part // 2] * 3):
        part //= 2
    found = [part] * 3
    for axis in range(3):
        while found[axis] > 1 and fits(less := [*found[:axis], found[axis] // 2, *found[axis + 1 :]]):
            found = less
    x, y, z = found
    return x, y, z
