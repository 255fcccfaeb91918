"""Normalisation layers, by their name in the settings."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from semivox.errors import UserError
from semivox.nets.layout_norm import Moments, is_slow, normalise

NORMS = ("batch", "instance", "group", "none")


def norm_layer(norm: str, channels: int) -> nn.Module:
    """Build batch, instance (no learned scale), group (at most 16 groups) or no normalisation."""
    match norm:
        case "batch":
            return BatchNorm(channels)
        case "instance":
            return InstanceNorm(channels)
        case "group":
            return nn.GroupNorm(gcd(16, channels), channels)
        case "none":
            return nn.Identity()
    raise UserError(f"Unknown normalisation layer: {norm}", found=norm, expected="one of " + ", ".join(NORMS))


class BatchNorm(nn.BatchNorm3d):
    """PyTorch's, with the same numbers, and much faster on a CPU where there are few channels."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, X, Y, Z) -> the same shape; moments of the batch in training, running ones in evaluation."""
        if not self.training or self.momentum is None or not is_slow(input, per_sample=False):
            return super().forward(input)
        output, (moments,) = normalise(input, self.weight, self.bias, per_sample=False, eps=self.eps)
        if self.track_running_stats:
            self._follow(moments, input.numel() // input.shape[1])
        return output

    @torch.no_grad()
    def _follow(self, moments: Moments, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(moments.mean, self.momentum)
        self.running_var.lerp_(moments.var * (count / (count - 1)), self.momentum)


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
        if is_slow(input, per_sample=True):
            return normalise(input, None, None, per_sample=True, eps=self.eps)[0]
        samples = [batch_norm(one, None, None, training=True, eps=self.eps) for one in torch.split(input, 1)]
        return torch.cat(samples) if len(samples) > 1 else samples[0]
