"""Connected components of label maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from torch import Tensor  # only for types: scoring uses this file and starts without torch

Neighbours = Literal[6, 18, 26]
_RANK = {6: 1, 18: 2, 26: 3}


def largest_components(label: Tensor, num_classes: int, neighbours: Neighbours = 26) -> Tensor:
    """Keep the largest component of each foreground class in each sample; the rest becomes background.

    Works on the CPU: with labels (B, X, Y, Z) on a GPU it waits for them and sends the result back.
    """
    import torch

    array = label.detach().cpu().numpy()
    kept = np.zeros_like(array)
    for before, after in zip(array, kept, strict=True):
        for index in range(1, num_classes):
            after[largest_component(before == index, neighbours)] = index
    return torch.from_numpy(kept).to(label.device)


def largest_component(mask: NDArray[np.bool_], neighbours: Neighbours = 26) -> NDArray[np.bool_]:
    """Keep the largest component of `mask` (X, Y, Z), of equally large ones the first in memory order.

    Voxels are connected over faces (6), also edges (18), also corners (26).
    """
    structure = ndimage.generate_binary_structure(mask.ndim, _RANK[neighbours])
    components, count = ndimage.label(mask, structure)
    if count < 2:
        return mask
    sizes = np.bincount(components.ravel())
    return np.asarray(components == 1 + int(sizes[1:].argmax()))
