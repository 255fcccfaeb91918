"""Normalisation layers, by their name in the settings."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from semivox.errors import UserError

NORMS = ("batch", "instance", "group", "none")


def norm_layer(norm: str, channels: int) -> nn.Module:
    """Build batch, instance (no learned scale), group (at most 16 groups) or no normalisation."""
    match norm:
        case "batch":
            return nn.BatchNorm3d(channels)
        case "instance":
            return InstanceNorm(channels)
        case "group":
            return nn.GroupNorm(gcd(16, channels), channels)
        case "none":
            return nn.Identity()
    raise UserError(f"Unknown normalisation layer: {norm}", found=norm, expected="one of " + ", ".join(NORMS))


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation without learned scale or running statistics.

    PyTorch's moves channels-last memory into the other layout, and what follows, pooling, upsampling or
    concatenation, has to live with that. On a CPU each sample is normalised as a batch of its own here: the
    same numbers, and channels-last memory stays so.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape; mean 0 and variance 1 of each sample's channels."""
        layout = torch.channels_last_3d
        if input.device.type != "cpu" or not len(input) or not input.is_contiguous(memory_format=layout):
            return super().forward(input)
        samples = [batch_norm(one, None, None, training=True, eps=self.eps) for one in torch.split(input, 1)]
        return torch.cat(samples) if len(samples) > 1 else samples[0]
