"""Networks of MONAI by the name of their class (`monai:SwinUNETR`); by trial, what patches they take."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from semivox.errors import UserError, unknown
from semivox.nets import MONAI, SEGMENTERS, NetFactory, Triple
from semivox.nets.blocks import MOST_CHANNELS, factor_of, levels_of, to_blocks, to_voxels
from semivox.nets.network import Network

PATCH: Triple = (96, 96, 96)  # of a network that takes one size only, where no plan says which


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
        # A model file has lists here; what has been tried is remembered by a key that has to be hashable.
        shapes = {name: _tuples(getattr(net, name)) for name in ("stem", "strides", "patch", "spacing_mm")}
        net = replace(net, **shapes)
        super().__init__(replace(net, norm="none", strides=()))
        parts, self.one_size = _divisor_of(net), _one_size(net)
        if self.one_size:
            x, y, z = (-(-side // step) for side, step in zip(net.patch or PATCH, net.stem, strict=True))
            parts = _multiples(parts, (x, y, z))
        self.spec, self.divisor = net, factor_of([net.stem, parts])
        tried = trial(net, _multiples(parts), batch=2, training=True)
        self.scales = tried.scales
        self.widest = tried.widest / prod(net.stem) / 2  # the largest map holds a decoder's and a skip's
        self.net = _build(net, parts)
        self.to_logits = nn.Conv3d(net.width, net.num_classes, 1) if net.features else nn.Identity()

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
        problem = ""
        if self.one_size and size != only:
            problem = f"it takes {only} only"
        elif batch:
            problem = trial(self.spec, (x, y, z), min(batch, 2), self.training).problem
        if problem:
            what = f"{self.spec.name} cannot take a patch of this size"
            do = "set another plan.patch or other net.options; of one size only: predict.window=patch"
            raise UserError(what, f"{size}: {problem}", do=do)


def scales_of(output: Any) -> list[Tensor]:
    """Take what a network returns as logits, fine to coarse; none if it is something else."""
    if isinstance(output, Tensor):
        return list(output.unbind(1)) if output.ndim == 6 else [output]
    parts = list(output) if isinstance(output, list | tuple) else []
    if not all(isinstance(part, Tensor) and part.ndim == 5 for part in parts):
        return []
    return parts if all(here.shape[2] > below.shape[2] for here, below in pairwise(parts)) else []


class Trial(NamedTuple):
    """What a network makes of a patch."""

    scales: int = 1
    widest: float = 0.0  # its largest map, in values for each position of the patch
    problem: str = ""  # why it makes nothing of it


@lru_cache(maxsize=256)
def trial(net: NetFactory, sides: Triple, batch: int = 1, training: bool = False) -> Trial:
    """Pass a patch without values, of `sides` blocks, through a network without memory for its weights."""
    module, sizes = _on_meta(net, sides if _one_size(net) else PATCH), []

    def measure(layer: nn.Module, inputs: Any, output: Any) -> None:
        sizes.append(output.numel() if isinstance(output, Tensor) else 0)

    inputs, outputs = _channels(net)
    hooks = [layer.register_forward_hook(measure) for layer in module.modules()]
    try:
        with torch.device("meta"), torch.random.fork_rng([]), torch.no_grad():
            output = module.train(training)(torch.empty(batch, inputs, *sides))
    except Exception as error:  # whatever MONAI raises
        return Trial(problem=str(error).partition("\n")[0])
    finally:
        for hook in hooks:
            hook.remove()
    scales, wanted = scales_of(output), (batch, outputs, *sides)
    if scales and tuple(scales[0].shape) == wanted:
        return Trial(len(scales), max(sizes) / batch / prod(sides))
    shapes = [tuple(one.shape) for one in scales]
    return Trial(problem=f"it returns {type(output).__name__} {shapes or ''}, not a map of {wanted}")


@lru_cache(maxsize=64)
def _divisor_of(net: NetFactory) -> Triple:
    """Find by trial what the sides of a patch have to be multiples of, a power of two along each axis."""

    def fits(parts: Triple) -> bool:
        odd = [part * (-(-96 // part) | 1) for part in parts]  # odd multiples of a part, from 96 on
        return not trial(net, (odd[0], odd[1], odd[2])).problem

    cubes = [(part, part, part) for part in (16, 32, 64)]
    found: Triple | None = next(filter(fits, cubes), None)
    if found is None:
        raise _refused(net, trial(net, PATCH).problem)
    for axes in ((0, 1, 2), (0,), (1,), (2,)):
        while all(found[axis] > 1 for axis in axes):
            x, y, z = (part // 2 if axis in axes else part for axis, part in enumerate(found))
            if not fits((x, y, z)):
                break
            found = x, y, z
    return found


def _multiples(parts: Triple, sides: Triple = PATCH) -> Triple:
    """Round sides up to multiples of `parts`."""
    x, y, z = (-(-side // part) * part for side, part in zip(sides, parts, strict=True))
    return x, y, z


@lru_cache(maxsize=8)
def _on_meta(net: NetFactory, sides: Triple) -> nn.Module:
    with torch.device("meta"), torch.random.fork_rng([]):
        return _build(net, sides)


def _build(net: NetFactory, sides: Triple) -> nn.Module:
    """Build the network on the default device; on meta also where a class reads values as it is built.

    Raises:
        UserError: what MONAI does not accept, or a package that it lacks.
    """
    kind, arguments = _class_of(net), _arguments(net, sides)
    try:
        return kind(**arguments)
    except Exception as error:
        if torch.get_default_device().type == "meta":
            with torch.device("cpu"):
                return _build(net, sides).to("meta")
        raise _refused(net, str(error).partition("\n")[0]) from error


def _arguments(net: NetFactory, sides: Triple) -> dict[str, Any]:
    """Check the options; take from the plan what the class requires of it.

    `strides` are those between the levels, unless the class also asks for those of upsampling: then the
    first level has one, too.
    """
    parameters, given = inspect.signature(_class_of(net)).parameters, _tuples(dict(net.options))
    inputs, outputs = _channels(net)
    own = {"in_channels": inputs, "out_channels": outputs, "spatial_dims": 3, "img_size": sides}
    for name, value in given.items():
        if name in own:
            what = f"net.options.{name} of {net.name} comes from the data set and its plan"
            raise UserError(what, value, "no such option", "leave it out")
        if name not in parameters:
            raise unknown(f"option of {net.name}", name, [one for one in parameters if one not in own])
    levels = levels_of(net, MOST_CHANNELS)
    planned = {
        "channels": tuple(level.channels for level in levels),
        "kernel_size": tuple(level.kernel for level in levels),
        "upsample_kernel_size": net.strides,
        "strides": ((1, 1, 1),) * ("upsample_kernel_size" in parameters) + net.strides,
    }
    needed = [name for name, one in parameters.items() if name in own or one.default is one.empty]
    filled = {name: value for name, value in {**own, **planned}.items() if name in needed}
    return {**filled, **given}


def _refused(net: NetFactory, found: str) -> UserError:
    options = json.dumps(dict(net.options), sort_keys=True)
    what = f"{net.name} cannot be used with net.options={options}"
    expected = "a class of monai.networks.nets that turns 3D images into logits of their size"
    return UserError(what, found, expected, f"change net.options, or choose {', '.join(SEGMENTERS)}")


def _class_of(net: NetFactory) -> type[nn.Module]:
    name = (net.name or "").removeprefix(MONAI)
    found = getattr(import_module("monai.networks.nets"), name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise unknown("network of MONAI", name, SEGMENTERS)
    return found


def _one_size(net: NetFactory) -> bool:
    return "img_size" in inspect.signature(_class_of(net)).parameters


def _channels(net: NetFactory) -> tuple[int, int]:
    """Return those that the class reads and makes for each block of the plan's stem."""
    size = prod(net.stem)
    return net.in_channels * size, size * (net.width if net.features else net.num_classes)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
