"""Networks that only predict: the same function with fewer passes over memory."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def lean(method: nn.Module, device: torch.device) -> None:
    """Prepare a method in eval mode for predictions, in place; it cannot be trained or saved afterwards.

    A batch normalisation that follows a convolution is folded into its weights: with fixed statistics both
    are one linear map. Convolution weights get the layout in which CPUs and tensor cores compute fastest.
    """
    for module in list(method.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    method.to(device)
    if device.type in ("cpu", "cuda"):
        for parameter in method.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def _fold(layers: nn.Sequential) -> None:
    for index in range(len(layers) - 1):
        conv, norm = layers[index], layers[index + 1]
        if not (isinstance(norm, nn.BatchNorm3d) and norm.track_running_stats):
            continue
        if isinstance(conv, nn.Conv3d | nn.ConvTranspose3d):
            transposed = isinstance(conv, nn.ConvTranspose3d)
            layers[index] = fuse_conv_bn_eval(conv, norm, transpose=transposed)
            layers[index + 1] = nn.Identity()
