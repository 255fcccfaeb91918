"""Strong views of patches: random changes of their intensities, drawn and computed on the patches' device.

The geometry stays, so a label of the patch is one of its views. Nothing is copied to the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ORDER = 3  # of the bias field's polynomial


def jitter(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast of most patches, and add strong noise to some.

    With v a patch brought to 0..1, in 80 % of them v becomes clip(a (v + b mean v), 0, 1), a in 0.5..1.5 and
    b in -0.5..0.5, and is brought back. Then 20 % get Gaussian noise of sigma 0.1 to 1, clipped at 2 sigma.

    The image is (B, C, X, Y, Z), with normalised intensities (standard deviation about 1).

    Source: the released code of Zhao et al., ECCV 2024.
    """
    low, high = image.amin(dim=(1, 2, 3, 4), keepdim=True), image.amax(dim=(1, 2, 3, 4), keepdim=True)
    unit = (image - low) / (high - low).clamp_min(1e-6)
    gain, offset = _uniform(image, 0.5, 1.5, generator), _uniform(image, -0.5, 0.5, generator)
    changed = (gain * (unit + offset * unit.mean(dim=(1, 2, 3, 4), keepdim=True))).clamp(0, 1)
    image = torch.where(_chosen(image, 0.8, generator), changed * (high - low) + low, image)
    sigma = _uniform(image, 0.1, 1.0, generator)
    noise = torch.randn(image.shape, generator=generator, device=image.device).clamp(-2, 2)
    return torch.where(_chosen(image, 0.2, generator), image + sigma * noise, image)


def shade_and_blur(image: Tensor, generator: torch.Generator) -> Tensor:
    """Give most patches a bias field and another gamma, and blur half of them.

    80 % are multiplied by the exponential of a polynomial of order 3 over the patch, -1..1 along each axis,
    with coefficients in -0.5..0.5; then an intensity v becomes sign(v) |v|^g with log g in -0.5..0.5. 50 %
    are blurred by a Gaussian of sigma 0.1 to 2 voxels, drawn for each axis. The image is (B, C, X, Y, Z),
    with normalised intensities (0 keeps its value).

    Source: the released code of Zhao et al., JBHI 2024, with the defaults of the transforms that it calls.
    """
    shaded = image * _bias_field(image, generator)
    gamma = _uniform(image, -0.5, 0.5, generator).exp()
    shaded = shaded.sign() * shaded.abs() ** gamma
    image = torch.where(_chosen(image, 0.8, generator), shaded, image)
    return torch.where(_chosen(image, 0.5, generator), _blurred(image, generator), image)


def _bias_field(image: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a smooth positive field for each patch, (B, 1, X, Y, Z)."""
    powers = torch.arange(_ORDER + 1, device=image.device)
    low = powers.view(-1, 1, 1) + powers.view(-1, 1) + powers <= _ORDER
    draws = torch.rand((len(image), *low.shape), generator=generator, device=image.device)
    field = (draws - 0.5) * low  # (B, i, j, k), the factors of x^i y^j z^k
    for axis, side in enumerate(image.shape[2:], start=1):
        place = torch.linspace(-1, 1, side, device=image.device)
        field = _along(field, axis, place.view(-1, 1) ** powers)
    return field.exp().unsqueeze(1)


def _blurred(image: Tensor, generator: torch.Generator) -> Tensor:
    """Take a Gaussian average along each axis; at the border, of the voxels inside."""
    for axis in (2, 3, 4):
        place = torch.arange(image.shape[axis], device=image.device)
        sigma = _uniform(image, 0.1, 2.0, generator)
        weights = torch.exp(-0.5 * ((place.view(-1, 1) - place) / sigma).square())  # (B, 1, 1, side, side)
        image = _along(image, axis, weights / weights.sum(dim=-1, keepdim=True))
    return image


def _along(values: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply by a matrix (..., outputs, inputs) along one axis."""
    moved = values.movedim(axis, -2)
    return (matrix.to(values.dtype) @ moved).movedim(-2, axis)


def _uniform(image: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw a number for each patch, (B, 1, 1, 1, 1)."""
    draws = torch.rand(len(image), generator=generator, device=image.device)
    return (low + (high - low) * draws).view(-1, 1, 1, 1, 1)


def _chosen(image: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Choose patches, (B, 1, 1, 1, 1) boolean."""
    return _uniform(image, 0, 1, generator) < chance
