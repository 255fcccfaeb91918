"""V-Net and ResNet-34 + V-Net decoder as one writes them first; frozen, uses nothing of semivox.

The order of parameters and buffers is that of `semivox.nets`, so that weights can be copied one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def convs(inputs: int, channels: int, repeats: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(repeats):
        layers.append(nn.Conv3d(inputs if index == 0 else channels, channels, 3, padding=1))
        layers.append(nn.BatchNorm3d(channels))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def down(channels: int) -> nn.Sequential:
    conv = nn.Conv3d(channels, 2 * channels, 2, stride=2)
    return nn.Sequential(conv, nn.BatchNorm3d(2 * channels), nn.ReLU())


def up(channels: int) -> nn.Sequential:
    conv = nn.ConvTranspose3d(channels, channels // 2, 2, stride=2)
    return nn.Sequential(conv, nn.BatchNorm3d(channels // 2), nn.ReLU())


class Block(nn.Module):
    """Basic residual block."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            conv = nn.Conv3d(inputs, channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class PlainNet(nn.Module):
    """Encoder of five levels, decoder with added skips, 1x1x1 head."""

    def __init__(self, kind: str, in_channels: int, classes: int, width: int, dropout: float) -> None:
        super().__init__()
        w = width
        if kind == "vnet":
            levels = [convs(in_channels, w, 1)]
            for level, repeats in enumerate((2, 3, 3, 3)):
                c = w * 2**level
                levels.append(nn.Sequential(down(c), convs(2 * c, 2 * c, repeats)))
        else:
            stem = nn.Conv3d(in_channels, w, 7, padding=3, bias=False)
            levels = [nn.Sequential(stem, nn.BatchNorm3d(w), nn.ReLU())]
            for level, count in enumerate((3, 4, 6, 3)):
                c = w * 2**level
                blocks = [Block(c, 2 * c, 2)] + [Block(2 * c, 2 * c, 1) for _ in range(count - 1)]
                levels.append(nn.Sequential(*blocks))
        self.levels = nn.ModuleList(levels)
        self.bottleneck = nn.Dropout3d(dropout if kind == "vnet" else 0.0)
        self.ups = nn.ModuleList([up(16 * w), up(8 * w), up(4 * w), up(2 * w)])
        self.stages = nn.ModuleList(
            [convs(8 * w, 8 * w, 3), convs(4 * w, 4 * w, 3), convs(2 * w, 2 * w, 2), convs(w, w, 1)]
        )
        self.dropout = nn.Dropout3d(dropout)
        self.head = nn.Conv3d(w, classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Image -> (logits, features before the head's dropout)."""
        skips = []
        for level in self.levels:
            x = level(x)
            skips.append(x)
        x = self.bottleneck(skips.pop())
        for enlarge, stage in zip(self.ups, self.stages, strict=True):
            x = stage(enlarge(x) + skips.pop())
        return self.head(self.dropout(x)), x


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers in their order, into the target's layout."""
    pairs = zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    for theirs, own in pairs:
        own.copy_(theirs)
