"""Networks of MONAI by the name of their class (`monai:SwinUNETR`); by trial, what patches they take."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from semivox.errors import UserError, unknown
from semivox.nets import MONAI, SEGMENTERS, NetFactory, Triple
from semivox.nets.blocks import factor_of, kernels_for, to_blocks, to_voxels
from semivox.nets.network import Network

PATCH: Triple = (96, 96, 96)  # of a network that takes one size only, where no plan says which
MOST_CHANNELS = 320


class MonaiNet(Network):
    """A network of MONAI that reads blocks of the plan's stem as channels and predicts their voxels.

    Channels and the number of dimensions come from the data set; the number of levels, strides and kernels
    from the plan, where the class requires them; `net.width` then is the width of its finest level. All else
    has MONAI's default unless an option says otherwise.

    `NetFactory` has `patch` for classes that take one size only, and `options` of the class. With `features`
    each voxel has `width` features, and a head of one convolution 1x1x1 stands behind them. Both convolutions
    together are one: it is the same network, as long as it has no more classes.
    """

    follows_plan: ClassVar[bool] = True
    takes_options: ClassVar[bool] = True

    def __init__(self, net: NetFactory) -> None:
        stem, width, size = net.stem, net.width, prod(net.stem)
        outputs = width if net.features else net.num_classes
        steps = tuple((x, y, z) for x, y, z in net.strides)  # tuples, also of a model file
        given = json.dumps(dict(net.options), sort_keys=True)
        name = (net.name or "").removeprefix(MONAI)
        recipe = Recipe(name, net.in_channels * size, outputs * size, width, factor_of([stem]), steps, given)
        parts = divisor_of(recipe)
        if recipe.one_size:
            inner = [-(-side // step) for side, step in zip(net.patch or PATCH, stem, strict=True)]
            parts = multiples(parts, inner)
            recipe = replace(recipe, sides=parts)
        super().__init__(replace(net, norm="none", strides=()))
        self.recipe, self.one_size, self.divisor = recipe, recipe.one_size, factor_of([stem, parts])
        tried = trial(recipe, multiples(parts), batch=2, training=True)
        self.scales = tried.scales
        self.widest = tried.widest / size / 2  # the largest map holds what a decoder and a skip bring
        self.net = recipe.build()
        self.to_logits = nn.Conv3d(width, net.num_classes, 1) if net.features else nn.Identity()

    def head(self, features: Tensor) -> Tensor:
        """(B, width, X, Y, Z) -> logits (B, K, X, Y, Z)."""
        return cast(Tensor, self.to_logits(features))

    def coarse(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn maps of `pyramid` into logits; each is the output of the network."""
        return [self.head(values) for values in maps]

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> what the network returns, fine to coarse: features, or logits."""
        self.check(image)
        return [to_voxels(values, self.block) for values in scales_of(self.net(to_blocks(image, self.block)))]

    def check_patch(self, sides: Sequence[int], batch: int) -> None:
        """Refuse what the network does not take, found by trial."""
        super().check_patch(sides, batch)
        x, y, z = (side // step for side, step in zip(sides, self.block, strict=True))
        size, only = (" x ".join(map(str, one)) for one in (sides, self.divisor))
        if self.one_size and size != only:
            problem = f"it takes {only} only"
        else:
            problem = trial(self.recipe, (x, y, z), min(batch, 2), self.training).problem if batch else ""
        if problem:
            what = f"{MONAI}{self.recipe.name} cannot take a patch of this size"
            do = "set another plan.patch or other net.options; of one size only: predict.window=patch"
            raise UserError(what, f"{size}: {problem}", do=do)


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
        return found

    @property
    def one_size(self) -> bool:
        """Whether the network takes patches of one size only."""
        return "img_size" in inspect.signature(self.kind).parameters

    def refused(self, found: object) -> UserError:
        """Say why class and options make no network for semivox."""
        what = f"{MONAI}{self.name} cannot be used with net.options={self.options}"
        expected = "a class of monai.networks.nets that turns 3D images into logits of their size"
        return UserError(what, found, expected, f"change net.options, or choose {', '.join(SEGMENTERS)}")

    def arguments(self) -> dict[str, Any]:
        """Check the options; take from the plan what the class requires of it.

        `strides` are those between the levels, unless the class also asks for those of upsampling: then the
        first level has one, too.
        """
        parameters, given = inspect.signature(self.kind).parameters, _tuples(json.loads(self.options))
        own: dict[str, Any] = {"in_channels": self.inputs, "out_channels": self.outputs}
        own |= {"spatial_dims": 3, "img_size": self.sides}
        if known := next((name for name in given if name in own), None):
            what = f"net.options.{known} of {MONAI}{self.name} comes from the data set and its plan"
            raise UserError(what, given[known], "no such option", "leave it out")
        if other := next((name for name in given if name not in parameters), None):
            free = [name for name in parameters if name not in own]
            raise unknown(f"option of {MONAI}{self.name}", other, free)
        channels = [min(MOST_CHANNELS, self.width * 2**level) for level in range(len(self.strides) + 1)]
        levels = {
            "channels": tuple(channels),
            "kernel_size": tuple(kernels_for(self.strides, self.stem)),
            "upsample_kernel_size": self.strides,
            "strides": ((1, 1, 1),) * ("upsample_kernel_size" in parameters) + self.strides,
        }
        required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
        filled = {name: value for name, value in own.items() if name in parameters}
        filled |= {name: levels[name] for name in required if name in levels}
        return {**filled, **given}

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
            raise self.refused(str(error).partition("\n")[0]) from error


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


class Trial(NamedTuple):
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
    if scales and tuple(scales[0].shape) == wanted:
        return Trial(len(scales), max(sizes) / batch / prod(sides))
    shapes = [tuple(one.shape) for one in scales]
    return Trial(problem=f"it returns {type(output).__name__} {shapes or ''}, not a map of {wanted}")


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
