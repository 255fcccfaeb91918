"""Copy-paste of cuboids between two sets of patches, and losses on the parts of such a mixture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semivox.losses.prediction import Prediction
from semivox.losses.supervised import dice_loss, masked_mean, nll


def cuboid_mask(shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """Return a mask (X, Y, Z) that is False in one random cuboid and True around it.

    Its sides are `share`, 0..1, of the patch's, rounded down to voxels. The first voxel is uniform over all
    positions except the last one, as published.
    """
    device, sizes = generator.device, [int(share * side + 1e-6) for side in shape]
    pairs = zip(shape, sizes, strict=True)
    draws = [torch.randint(max(n - size, 1), (1,), generator=generator, device=device) for n, size in pairs]
    first = torch.cat(draws).unsqueeze(0)
    return ~box_masks(shape, first, first + _sides(device, sizes))[0]


def random_cuboid_mask(
    shape: Sequence[int], shares: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Return a mask (X, Y, Z) that is False in a cuboid of random size and place, and True around it.

    `shares` are the smallest and largest side of the cuboid / side of the patch; each side is drawn alone.
    """
    low, high = shares
    draws = torch.rand((len(shape), 2), generator=generator, device=generator.device)
    sides = _sides(generator.device, shape)
    length = (low + (high - low) * draws[:, 0]) * sides
    first = (draws[:, 1] * (sides - length)).unsqueeze(0)
    return ~box_masks(shape, first - 0.5, first + length - 0.5)[0]  # the voxels whose center is inside


def _sides(device: torch.device, sides: Sequence[int]) -> Tensor:
    """Return the sides (3,) int64, filled on the device: a copy from the host would make a GPU wait."""
    return torch.stack([torch.full((), side, device=device) for side in sides])


def box_masks(shape: Sequence[int], first: Tensor, stop: Tensor) -> Tensor:
    """Return masks (B, X, Y, Z) that are True at the voxels first <= index < stop, both (B, 3)."""
    mask = torch.ones((), dtype=torch.bool, device=first.device)
    for axis, side in enumerate(shape):
        place = torch.arange(side, device=first.device)
        inside = (place >= first[:, axis, None]) & (place < stop[:, axis, None])
        mask = mask & inside.view(-1, *(side if other == axis else 1 for other in range(len(shape))))
    return mask


def cutmix_boxes(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return masks (count, X, Y, Z) that are True inside a box of CutMix: of one size, each in its own place.

    Its sides are sqrt(1 - l) of the patch's, l ~ Beta(4, 4), which is the median of seven uniform draws; the
    center is uniform from an eighth of a side on, and what lies outside the patch is cut off.

    Source: Zhao et al., ECCV 2024, in the released code.
    """
    device = generator.device
    share = (1.0 - torch.rand(7, generator=generator, device=device).sort().values[3]).sqrt()
    sides = _sides(device, shape)
    half = (share * sides).floor() // 2
    draws = torch.rand((count, len(shape)), generator=generator, device=device)
    center = sides // 8 + (draws * (sides - sides // 8)).floor()
    return box_masks(shape, center - half, center + half)


def volume_boxes(count: int, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return masks (count, X, Y, Z) that are True inside a box in half of the samples, and nowhere in others.

    The box has a share v of the volume, uniform in 0.02..0.4, and the shape (v / r)^(1/3), (v r)^(1/3),
    v^(1/3) in sides of the patch, r uniform in 0.3..1/0.3; a side is at most the patch's. Its place is
    uniform inside the patch.

    Source: Zhao et al., JBHI 2024, in the released code, there in voxels.
    """
    device = generator.device
    volume, ratio, chance = torch.rand((3, count), generator=generator, device=device)
    volume, ratio = 0.02 + 0.38 * volume, 0.3 + (1 / 0.3 - 0.3) * ratio
    shares = torch.stack([volume / ratio, volume * ratio, volume], dim=1) ** (1 / 3)
    sides = _sides(device, shape)
    length = (shares.clamp(max=1.0) * sides).floor()
    draws = torch.rand((count, len(shape)), generator=generator, device=device)
    first = (draws * (sides - length)).floor()
    return box_masks(shape, first, first + length * (chance < 0.5).unsqueeze(1))


def exchange_masks(count: int, mask: Tensor) -> Tensor:
    """Take `mask` (X, Y, Z) for even samples and its complement for odd ones: (count, X, Y, Z) boolean."""
    odd = torch.arange(count, device=mask.device).view(-1, 1, 1, 1) % 2 == 1
    return mask ^ odd


def paste(outer: Tensor, inner: Tensor, mask: Tensor) -> Tensor:
    """Take `outer` where the mask (X, Y, Z) holds, `inner` elsewhere; both (B, ..., X, Y, Z)."""
    return torch.where(mask, outer, inner)


def repeated(values: Tensor, count: int) -> Tensor:
    """Return samples 0 to `count` - 1 of (B, ...), starting again after the last; B >= 1."""
    return values[torch.arange(count, device=values.device) % len(values)]


def halves(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return samples 0 to `count` - 1 and the next `count` ones, see `repeated`."""
    both = repeated(values, 2 * count)
    return both[:count], both[count:]


def region_loss(prediction: Prediction, label: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute (cross-entropy + Dice) / 2 over the voxels where the mask, (X, Y, Z) or as the label, holds.

    The Dice is that of each sample and class, background included, with a linear denominator.
    """
    losses = nll(prediction.log_probs, label)
    entropy = masked_mean(losses, None if mask is None else mask.expand_as(losses))
    dice = dice_loss(prediction.probs, label, mask=mask, background=True, squared=False, each=True)
    return 0.5 * (entropy + dice)
