"""Convolutions that compute what PyTorch's do, by the way that is right and quick on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, conv_transpose3d, pad

from semivox.losses.prediction import widen

_LANES = 16  # channels that oneDNN's kernels compute at once


class Conv3x3x3(nn.Conv3d):
    """3x3x3 convolution, padding 1.

    On a CPU, where the input's first side is 2 voxels, it computes in float32: oneDNN's bfloat16 gradient
    of the weights is wrong there, up to infinity and NaN (seen with PyTorch 2.13.0 and AVX512-BF16;
    `tests/nets/test_nets.py` compares the two). A single small map in float32 goes to oneDNN, too: PyTorch
    alone takes a kernel of its own for it, which is several times slower.
    """

    def __init__(self, inputs: int, channels: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__(inputs, channels, kernel_size=3, stride=stride, padding=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, X / stride, ...)."""
        if input.device.type == "cpu" and input.shape[2] == 2:
            with torch.autocast("cpu", enabled=False):
                return self._quick(widen(input)).to(input.dtype)
        return self._quick(input)

    def _quick(self, input: Tensor) -> Tensor:
        if len(input) > 1 or not _wants_onednn(input):
            return super().forward(input)
        return torch.mkldnn_convolution(
            input, self.weight, self.bias, (1, 1, 1), self.stride, self.dilation, self.groups
        )


def _wants_onednn(input: Tensor) -> bool:
    plain = input.device.type == "cpu" and input.dtype == torch.float32
    if not plain or torch.is_autocast_enabled("cpu"):
        return False
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and "AVX" in torch.backends.cpu.get_cpu_capability()


class Conv7x7x7(nn.Conv3d):
    """7x7x7 convolution without bias, padding 3, for images.

    An image with one channel leaves most of a CPU's vector lanes idle. There, the 7 voxels along the last
    axis become channels of a 7x7x1 convolution, and with fewer than 16 outputs neighbouring voxels share
    one position; the result in channels-last memory is the same.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, kernel_size=7, padding=3, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, X, Y, Z)."""
        if input.device.type != "cpu" or self.in_channels > 1:
            return super().forward(input)
        if torch.is_autocast_enabled("cpu"):
            input = input.to(torch.get_autocast_dtype("cpu"))
        together = _LANES // self.out_channels
        if together == 0 or input.shape[4] % together:
            together = 1
        window = 6 + together
        lines = pad(input[:, 0], (3, 3)).unfold(3, window, together)  # (B, X, Y, Z / together, window)
        taps = torch.stack([pad(self.weight[:, 0], (i, together - 1 - i)) for i in range(together)])
        weight = taps.flatten(0, 1).movedim(3, 1).unsqueeze(4)  # (together * channels, window, 7, 7, 1)
        layout = torch.channels_last_3d
        lines = lines.movedim(4, 1).contiguous(memory_format=layout)
        result = conv3d(lines, weight.contiguous(memory_format=layout), padding=(3, 3, 0))
        rows = result.movedim(1, 4).reshape(*input.shape[:1], *input.shape[2:], self.out_channels)
        return rows.movedim(4, 1)


class ConvTranspose2x2x2(nn.ConvTranspose3d):
    """Transposed convolution 2x2x2 with stride 2: doubles the grid.

    On a CPU PyTorch's gradient of the bias takes several times as long as the rest of the layer; here it is
    a sum.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, kernel_size=2, stride=2)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, 2 X, 2 Y, 2 Z)."""
        if input.device.type != "cpu" or self.bias is None or not torch.is_grad_enabled():
            return super().forward(input)
        values = conv_transpose3d(input, self.weight, self.bias.detach(), stride=2)
        result: Tensor = _BiasGradient.apply(values, self.bias)  # type: ignore[no-untyped-call]
        return result


class _BiasGradient(torch.autograd.Function):
    """Give `bias` the gradient it has where it was added to `values`, which pass unchanged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bias: Tensor) -> Tensor:
        ctx.mark_dirty(values)
        ctx.dtype = bias.dtype
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.sum(dim=(0, 2, 3, 4)).to(ctx.dtype)
