"""Connected components of label maps."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

Neighbours = Literal[6, 18, 26]
_RANK = {6: 1, 18: 2, 26: 3}


@torch.no_grad()
def largest_components(label: Tensor, num_classes: int, neighbours: Neighbours = 26) -> Tensor:
    """Keep the largest component of each foreground class in each sample; the rest becomes background.

    Works on the CPU: with labels on a GPU it waits for them and sends the result back. Of two components of
    the same size the first in memory order stays.

    Args:
        label: class indices (B, X, Y, Z), int64.
        num_classes: K, background included.
        neighbours: voxels that count as connected: faces (6), also edges (18), also corners (26).

    Returns:
        (B, X, Y, Z) int64, on the label's device.
    """
    array = label.cpu().numpy()
    kept = np.zeros_like(array)
    for before, after in zip(array, kept, strict=True):
        for index in range(1, num_classes):
            after[_largest(before == index, neighbours)] = index
    return torch.from_numpy(kept).to(label.device)


def _largest(mask: NDArray[np.bool_], neighbours: Neighbours) -> NDArray[np.bool_]:
    structure = ndimage.generate_binary_structure(mask.ndim, _RANK[neighbours])
    components, count = ndimage.label(mask, structure)
    if count < 2:
        return mask
    sizes = np.bincount(components.ravel())
    return np.asarray(components == 1 + int(sizes[1:].argmax()))
