"""The networks of the semi-supervised literature: V-Net, ResNet-34 and 3D U-Net."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import relu

from semivox.nets import NetFactory, Triple
from semivox.nets.blocks import Up, UpKind, levels_of, norm_layer, normalised, stage
from semivox.nets.cpu import Conv, Conv7x7x7
from semivox.nets.network import Decoder, Segmenter

LEVEL_DROPOUT = (0.2, 0.4, 0.6, 1.0)  # of the coarsest decoder level's probability, fine to coarse


class VNet(Segmenter):
    """V-Net without residual connections inside a level.

    Dropout stands after the coarsest level and before the head. With width 16, one channel and two classes:
    9,448,866 parameters and 40.11 GMAC for a 112x112x80 patch.

    Source: Milletari et al., "V-Net", 3DV 2016, in the plain variant of Yu et al., MICCAI 2019.
    """

    repeats = (2, 3, 3, 3)  # convolutions a level after the finest, which has one

    def __init__(self, net: NetFactory) -> None:
        (inputs, channels, _, kernel), *coarser = levels_of(net)
        levels = [stage(inputs, channels, 1, net.norm, kernel)]
        for (inputs, channels, stride, kernel), repeats in zip(coarser, self.repeats, strict=False):
            convolutions = stage(channels, channels, repeats, net.norm, kernel)  # draws its weights first
            down = nn.Sequential(*normalised(nn.Conv3d(inputs, channels, stride, stride), net.norm))
            levels.append(nn.Sequential(down, convolutions))
        super().__init__(net, levels, VNetDecoder(net), (net.dropout, net.dropout))


class VNetDecoder(Decoder):
    """The V-Net's decoder with added skips, also that of the ResNet; `up` is how levels are up-sampled."""

    repeats = (1, 2, 3, 3)  # convolutions a level, fine to coarse

    def __init__(self, net: NetFactory, up: UpKind = "transposed") -> None:
        super().__init__(net)
        levels = levels_of(net)
        for fine, coarse in reversed([*pairwise(levels)]):
            self.ups.append(Up(coarse.channels, net.norm, up, coarse.stride, fine.kernel))
        for (_, channels, _, kernel), repeats in reversed([*zip(levels[:-1], self.repeats, strict=False)]):
            self.stages.append(stage(channels, channels, repeats, net.norm, kernel))


class ResNet34(Segmenter):
    """ResNet-34 encoder with a full-resolution stem and no pooling, V-Net decoder.

    Dropout stands before the head only. With width 16, one channel and two classes: 17,930,354 parameters and
    72.74 GMAC for a 112x112x80 patch.

    Source: He et al., CVPR 2016, in 3D as partner of a V-Net: Wang et al., "MCF", CVPR 2023.
    """

    blocks = (3, 4, 6, 3)  # a stage

    def __init__(self, net: NetFactory) -> None:
        (inputs, width, _, thin), *coarser = levels_of(net)
        x, y, z = (7 if side == 3 else 1 for side in thin)
        first = Conv7x7x7(inputs, width) if min(thin) == 3 else Conv(inputs, width, (x, y, z), bias=False)
        levels = [nn.Sequential(*normalised(first, net.norm))]
        for (inputs, channels, stride, kernel), count in zip(coarser, self.blocks, strict=False):
            blocks = [BasicBlock(inputs, channels, stride, kernel, net.norm)]
            blocks += [BasicBlock(channels, channels, (1, 1, 1), kernel, net.norm) for _ in range(count - 1)]
            levels.append(nn.Sequential(*blocks))
        super().__init__(net, levels, VNetDecoder(net), (0.0, net.dropout))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; with a stride, that is a strided 1x1x1 convolution."""

    def __init__(self, inputs: int, channels: int, stride: Triple, kernel: Triple, norm: str) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *normalised(Conv(inputs, channels, kernel, stride=stride, bias=False), norm),
            Conv(channels, channels, kernel, bias=False),
            norm_layer(norm, channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != channels:
            strided = nn.Conv3d(inputs, channels, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(strided, norm_layer(norm, channels))

    def forward(self, image: Tensor) -> Tensor:
        """(B, inputs, X, Y, Z) -> (B, channels, X / stride, ...)."""
        return relu(self.residual(image) + self.shortcut(image), inplace=True)


class UNet3D(Segmenter):
    """3D U-Net: max pooling down, trilinear upsampling, concatenated skips, two convolutions a level.

    Dropout stands after each decoder level: 0.5, 0.3, 0.2 and, before the head, 0.1 of the channels for
    `dropout` 0.5. As published it has instance normalisation (`net.norm=instance`) and then, with width 16,
    one channel and two classes, 5,884,050 parameters. Pooling and trilinear upsampling have no deterministic
    backward pass on CUDA.

    Source: Cicek et al., "3D U-Net", MICCAI 2016, in the variant of Luo et al., MICCAI 2021.
    """

    def __init__(self, net: NetFactory) -> None:
        levels: list[nn.Module] = []
        for inputs, channels, stride, kernel in levels_of(net):
            convolutions = stage(inputs, channels, 2, net.norm, kernel)
            levels.append(nn.Sequential(nn.MaxPool3d(stride), convolutions) if levels else convolutions)
        super().__init__(net, levels, UNetDecoder(net), (0.0, net.dropout * LEVEL_DROPOUT[0]))


class UNetDecoder(Decoder):
    """Trilinear upsampling, concatenation with the skip, two convolutions, dropout: a level.

    `net.dropout` is the probability of dropping a channel of the coarsest decoded level, before it goes to
    the next level; finer ones have `LEVEL_DROPOUT` of it, and the finest none (the head drops its channels).
    """

    concatenates: ClassVar[bool] = True

    def __init__(self, net: NetFactory) -> None:
        super().__init__(net)
        pairs = [*zip(pairwise(levels_of(net)), (0.0, *LEVEL_DROPOUT[1:]), strict=False)]
        for (fine, coarse), share in reversed(pairs):
            self.ups.append(nn.Upsample(scale_factor=coarse.stride, mode="trilinear"))
            both = fine.channels + coarse.channels
            convolutions = stage(both, fine.channels, 2, net.norm, fine.kernel)
            self.stages.append(convolutions.append(nn.Dropout3d(share * net.dropout)))
