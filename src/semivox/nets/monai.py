"""Networks of MONAI by the name of their class: `monai:SwinUNETR`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import ClassVar, cast

from torch import Tensor, nn

from semivox.errors import UserError
from semivox.nets.blocks import factor_of, to_blocks, to_voxels
from semivox.nets.monai_class import PATCH, PREFIX, Recipe, divisor_of, multiples, scales_of, trial
from semivox.nets.network import Network
from semivox.nets.spec import NetSpec


class MonaiNet(Network):
    """A network of MONAI that reads blocks of the plan's stem as channels and predicts their voxels.

    Channels and the number of dimensions come from the data set; the number of levels, strides and kernels
    from the plan, where the class requires them; `net.width` then is the width of its finest level. All else
    has MONAI's default unless an option says otherwise.

    `NetSpec` has `patch` for classes that take one size only, and `options` of the class; norm, dropout
    and along_plan are not for it. With `features` each voxel has `width` features, and a head of one
    convolution 1x1x1 stands behind them. Both convolutions together are one: it is the same network, as long
    as it has no more classes.
    """

    follows_plan: ClassVar[bool] = True
    takes_options: ClassVar[bool] = True

    def __init__(self, name: str, net: NetSpec) -> None:
        stem, width, features = net.stem, net.width, net.features
        size, outputs = prod(stem), width if features else net.num_classes
        given = json.dumps(dict(net.options or {}), sort_keys=True)
        steps = tuple((x, y, z) for x, y, z in net.strides)  # tuples, also of a model file
        grid = factor_of([stem])
        recipe = Recipe(name, net.in_channels * size, outputs * size, width, grid, steps, given)
        parts = divisor_of(recipe)
        if recipe.one_size:
            inner = [-(-side // step) for side, step in zip(net.patch or PATCH, stem, strict=True)]
            parts = multiples(parts, inner)
            recipe = replace(recipe, sides=parts)
        tried = trial(recipe, multiples(parts), batch=2, training=True)
        super().__init__(replace(net, norm="none", strides=()))
        self.recipe, self.one_size, self.divisor = recipe, recipe.one_size, factor_of([stem, parts])
        self.scales = tried.scales
        self.widest = tried.widest / size / 2  # the largest map holds what a decoder and a skip bring
        self.net = recipe.build()
        self.to_logits = nn.Conv3d(width, net.num_classes, 1) if features else nn.Identity()

    def features(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> (B, width, X, Y, Z), of a network built with `features`."""
        return self.pyramid(image)[0]

    def head(self, features: Tensor) -> Tensor:
        """(B, width, X, Y, Z) -> logits (B, K, X, Y, Z)."""
        return cast(Tensor, self.to_logits(features))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> logits (B, K, X, Y, Z)."""
        return self.head(self.features(image))

    def deep(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> logits of all scales that the network returns, fine to coarse."""
        return self.coarse(self.pyramid(image))

    def coarse(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn maps of `pyramid` into logits."""
        return [self.head(values) for values in maps]

    def check_patch(self, sides: Sequence[int], batch: int) -> None:
        """Refuse what the network does not take, found by trial."""
        if self.one_size and tuple(sides) != self.divisor:
            found, wanted = (" x ".join(map(str, size)) for size in (sides, self.divisor))
            do = "set predict.window=patch, or choose a network without img_size"
            raise UserError(f"{PREFIX}{self.recipe.name} takes patches of one size only", found, wanted, do)
        super().check_patch(sides, batch)
        x, y, z = (side // step for side, step in zip(sides, self.block, strict=True))
        if batch and (problem := trial(self.recipe, (x, y, z), min(batch, 2), self.training).problem):
            raise UserError(
                f"{PREFIX}{self.recipe.name} cannot take a patch of this size",
                f"{' x '.join(map(str, sides))}: {problem}",
                do="set a larger plan.patch, or other net.options",
            )

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """(B, C, X, Y, Z) -> what the network returns, fine to coarse: `features`, or logits."""
        self.check(image)
        return [to_voxels(values, self.block) for values in scales_of(self.net(to_blocks(image, self.block)))]
