"""Inference of a pair of networks as the published tests do it; frozen, uses nothing of semivox.

One window at a time and one network after the other, in float32 and contiguous memory: zero padding of axes
shorter than the patch, softmax averaged with equal weights over all windows that contain a voxel, mean of the
networks, argmax. LA: patch 112x112x80, stride 18x18x4. BraTS-2019: patch 96x96x96, stride 64x64x64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Triple = tuple[int, int, int]
Array = NDArray[np.float32]


class PublishedWindows:
    """The published procedure, divided so that a benchmark can time a few windows instead of all.

    Args:
        image: (C, X, Y, Z) float32.
        nets: in eval mode, (1, C, *patch) -> logits (1, K, *patch).
        classes: K.
        patch, stride: in voxels.
    """

    def __init__(
        self, image: Array, nets: Sequence[nn.Module], classes: int, patch: Triple, stride: Triple
    ) -> None:
        self.nets, self.classes, self.patch, self.stride = nets, classes, patch, stride
        self.shape = image.shape[1:]
        missing = [max(p - s, 0) for p, s in zip(patch, self.shape, strict=True)]
        self.front = [m // 2 for m in missing]
        sides = [(f, m - f) for f, m in zip(self.front, missing, strict=True)]
        self.image = np.pad(image, [(0, 0), *sides], mode="constant", constant_values=0)

    def corners(self) -> list[Triple]:
        """First voxels of all windows in the padded scan."""
        counts = [
            math.ceil((s - p) / d) + 1
            for s, p, d in zip(self.image.shape[1:], self.patch, self.stride, strict=True)
        ]
        found = []
        for i in range(counts[0]):
            for j in range(counts[1]):
                for k in range(counts[2]):
                    x = min(self.stride[0] * i, self.image.shape[1] - self.patch[0])
                    y = min(self.stride[1] * j, self.image.shape[2] - self.patch[1])
                    z = min(self.stride[2] * k, self.image.shape[3] - self.patch[2])
                    found.append((x, y, z))
        return found

    def maps(self) -> tuple[Array, Array]:
        """Empty maps of scores (K, ...) and counts."""
        size = self.image.shape[1:]
        return np.zeros((self.classes, *size), np.float32), np.zeros(size, np.float32)

    def window(self, net: nn.Module, corner: Triple, score: Array, count: Array) -> None:
        """One window through one network, added to the maps."""
        x, y, z = corner
        px, py, pz = self.patch
        cut = self.image[:, x : x + px, y : y + py, z : z + pz]
        tensor = torch.from_numpy(np.ascontiguousarray(cut)).unsqueeze(0)
        with torch.no_grad():
            probs = torch.softmax(net(tensor), dim=1)
        score[:, x : x + px, y : y + py, z : z + pz] += probs[0].numpy()
        count[x : x + px, y : y + py, z : z + pz] += 1

    def finish(self, maps: Sequence[tuple[Array, Array]]) -> tuple[NDArray[np.int64], Array]:
        """Mean over windows and networks, label, padding removed."""
        probs = np.mean([score / count for score, count in maps], axis=0)
        x, y, z = self.front
        sx, sy, sz = self.shape
        probs = probs[:, x : x + sx, y : y + sy, z : z + sz]
        return probs.argmax(0), probs

    def run(self) -> tuple[NDArray[np.int64], Array]:
        """All windows of all networks: label (X, Y, Z) and probabilities (K, X, Y, Z)."""
        results = []
        for net in self.nets:
            score, count = self.maps()
            for corner in self.corners():
                self.window(net, corner, score, count)
            results.append((score, count))
        return self.finish(results)


def whole_pass(
    image: Array, nets: Sequence[nn.Module], *, bf16: bool, channels_last: bool, divisor: int = 16
) -> tuple[NDArray[np.int64], Array]:
    """The scan, zero-padded to multiples of `divisor`, through each network once; result as `run`'s.

    The networks' weights must be in the memory format that is asked for here.
    """
    shape = image.shape[1:]
    missing = [-side % divisor for side in shape]
    front = [m // 2 for m in missing]
    sides = [(f, m - f) for f, m in zip(front, missing, strict=True)]
    tensor = torch.from_numpy(np.pad(image, [(0, 0), *sides])).unsqueeze(0)
    if channels_last:
        tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        maps = [torch.softmax(net(tensor).float(), dim=1)[0].numpy() for net in nets]
    box = (slice(None), *(slice(f, f + s) for f, s in zip(front, shape, strict=True)))
    probs = np.mean(maps, axis=0)[box]
    return probs.argmax(0), probs
