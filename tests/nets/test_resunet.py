"""The residual U-Net: its grids, its blocks of voxels, its memory layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from semivox.errors import UserError
from semivox.nets import build_net
from semivox.nets.blocks import kernels_for, to_blocks, to_voxels


def resunet(**fields: object) -> Any:
    small = {"in_channels": 1, "num_classes": 2, "width": 4, "norm": "instance", "dropout": 0.0}
    return build_net("resunet", **small | fields)


def test_channels_become_the_voxels_of_a_block() -> None:
    """Two classes, blocks of 1 x 2 x 3 voxels, two blocks along the first axis; written out by hand."""
    values = torch.arange(2 * 6 * 2).float().view(1, 12, 2, 1, 1)
    voxels = to_voxels(values, (1, 2, 3))
    assert voxels.shape == (1, 2, 2, 2, 3)
    for k in range(2):
        for x in range(2):
            for y in range(2):
                for z in range(3):
                    assert voxels[0, k, x, y, z] == values[0, k * 6 + y * 3 + z, x, 0, 0]
    assert torch.equal(to_blocks(voxels, (1, 2, 3)), values)


def test_blocks_of_one_voxel_keep_the_strides_of_an_image() -> None:
    image = torch.zeros(2, 1, 4, 4, 4).as_strided((2, 1, 4, 4, 4), (64, 1, 16, 4, 1))
    assert to_blocks(image, (1, 1, 1)).stride() == to_voxels(image, (1, 1, 1)).stride() == image.stride()


def test_a_network_with_a_stem_returns_the_grid_of_the_image() -> None:
    net = resunet(in_channels=2, num_classes=3, stem=(2, 2, 1), strides=((2, 2, 1), (2, 2, 2)))
    assert net.divisor == (8, 8, 2)
    image = torch.randn(1, 2, 16, 24, 4)
    assert net(image).shape == (1, 3, 16, 24, 4)
    assert [tuple(logits.shape[2:]) for logits in net.deep(image)] == [(16, 24, 4), (8, 12, 4), (4, 6, 4)]
    assert torch.equal(net.deep(image)[0], net(image))


def test_thick_slices_are_not_halved_and_not_mixed_where_pixels_are_halved() -> None:
    net = resunet(strides=((2, 2, 1), (2, 2, 2)))
    kernels = [level.first[0].kernel_size for level in net.encoder]
    assert kernels == [(3, 3, 1), (3, 3, 3), (3, 3, 3)]


def test_slices_that_were_halved_before_are_mixed_where_they_keep_their_number() -> None:
    """Else a strided convolution with one voxel along them would skip every second slice."""
    cube, flat, half = (3, 3, 3), (3, 3, 1), (2, 2, 1)
    assert kernels_for([(2, 2, 2), half]) == [cube, cube, cube]
    assert kernels_for([half, half, (2, 2, 2)]) == [flat, flat, cube, cube]
    assert kernels_for([half], stem=(2, 2, 2)) == [cube, cube]
    assert kernels_for([half], stem=half) == [flat, cube]
    assert kernels_for([(1, 1, 1)]) == [cube, cube]
    net = resunet(stem=(1, 1, 2), strides=((2, 2, 2), half))
    kernels = [level.first[0].kernel_size for level in net.encoder]
    assert kernels == [level[0].kernel_size for level in net.decoder] + [cube] == [cube, cube, cube]


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    net = resunet()
    with pytest.raises(UserError, match="multiples of 8 x 8 x 8"):
        net(torch.zeros(1, 1, 16, 16, 12))


def test_maps_keep_the_channels_last_layout() -> None:
    net = resunet(stem=(2, 2, 2)).to(memory_format=torch.channels_last_3d)
    image = torch.randn(2, 1, 32, 32, 32).to(memory_format=torch.channels_last_3d)
    for values in net.pyramid(image):
        assert values.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_single_voxel_to_normalise_is_refused() -> None:
    net = resunet()
    with pytest.raises(UserError, match="too small for instance normalisation"):
        net(torch.zeros(2, 1, 8, 8, 8))
    assert resunet(norm="group")(torch.zeros(2, 1, 8, 8, 8)).shape
