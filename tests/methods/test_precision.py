"""bfloat16 autocast against float32 on real patches: every term within 2 %."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.methods import create
from semivox.methods.base import Batch, Step
from semivox.methods.dual import Dual
from semivox.nets import NetFactory

PATCH = (32, 32, 16)


def real_patches(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Images (N, 1, X, Y, Z) and labels (N, X, Y, Z) at the border of the left atrium."""
    images, labels = [], []
    for path in sorted((folder / "imagesTr").glob("*_0000.nii.gz"))[:count]:
        label = np.asarray(nib.load(folder / "labelsTr" / path.name.replace("_0000", "")).dataobj) > 0
        x, y, z = np.nonzero(label)
        start = int(np.quantile(x, 0.05)) - 16, int(np.quantile(y, 0.8)) - 8, int(np.median(z)) - 8
        crop = tuple(slice(at, at + side) for at, side in zip(start, PATCH, strict=True))
        images.append(np.asarray(nib.load(path).dataobj[crop], dtype=np.float32))
        labels.append(label[crop].astype(np.int64))
    return torch.from_numpy(np.stack(images)).unsqueeze(1), torch.from_numpy(np.stack(labels))


@pytest.fixture(scope="module")
def trained(real_data: Path) -> tuple[Dual, list[tuple[Batch, Batch]]]:
    """Two small networks after a few supervised steps, so that no term is degenerate; and three batches."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    image, label = real_patches(real_data / "la2018", 6)
    batches = [
        (Batch(image[[i, i + 1]], label[[i, i + 1]]), Batch(image[[i + 2, i + 3]], None)) for i in range(3)
    ]
    method: Any = create("dual", {}, NetFactory(1, 2, width=4, dropout=0.0))
    optimiser = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    for iteration in range(12):
        labeled, unlabeled = batches[iteration % 3]
        losses = method.losses(labeled, unlabeled, Step(iteration, 12, torch.Generator().manual_seed(0)))
        optimiser.zero_grad()
        (losses["sup_a"] + losses["sup_b"]).backward()
        optimiser.step()
    return method, batches


@pytest.mark.real
def test_bfloat16_autocast_within_two_percent(
    trained: tuple[Dual, list[tuple[Batch, Batch]]], step: Callable[..., Step]
) -> None:
    """Masks and labels flip at single voxels, so the mean over three batches is compared.

    PGL is a difference of two terms of similar size and may vanish; each of the two is compared instead.
    """
    method, batches = trained
    means: dict[bool, dict[str, float]] = {}
    for half in (False, True):
        sums: dict[str, float] = {}
        for labeled, unlabeled in batches:
            at = step(5, 10)
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                losses = method.losses(labeled, unlabeled, at)
            assert all(loss.dtype == torch.float32 for loss in losses.values())
            assert at.notes["cr_share"] > 0.001 and 0.5 < at.notes["efs_valid_share"] < 1
            assert at.notes["reliable_0"] > 0 and at.notes["reliable_1"] > 0
            parts = {
                name: note for name, note in at.notes.items() if name.startswith(("pgl_pull", "pgl_apart"))
            }
            del losses["pgl"]
            for name, value in (losses | parts).items():
                sums[name] = sums.get(name, 0.0) + value.item()
        means[half] = sums
    assert means[True] == pytest.approx(means[False], rel=0.02)
    assert means[True] != means[False], "autocast had no effect"


@pytest.mark.real
def test_bfloat16_gradients_are_finite_and_point_the_same_way(
    trained: tuple[Dual, list[tuple[Batch, Batch]]], step: Callable[..., Step]
) -> None:
    """Over three batches, as above."""
    method, batches = trained
    flat = []
    for half in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            losses = [loss for batch in batches for loss in method.losses(*batch, step(5, 10)).values()]
        found = torch.autograd.grad(torch.stack(losses).sum(), list(method.parameters()))
        flat.append(torch.cat([gradient.flatten().float() for gradient in found]))
    assert bool(torch.isfinite(flat[1]).all())
    assert torch.cosine_similarity(flat[0], flat[1], dim=0) > 0.98


def test_autocast_leaves_the_loss_mathematics_alone(
    fixed_dual: Callable[..., tuple[Dual, Batch, Batch]], step: Callable[..., Step]
) -> None:
    """With networks that compute nothing, autocast changes nothing at all."""
    dual, labeled, unlabeled = fixed_dual(3, pull_fraction=1.0)
    dual.float()
    found = []
    for half in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            losses = dual.losses(labeled, unlabeled, step(5, 10))
        found.append({name: loss.item() for name, loss in losses.items()})
    assert found[0] == found[1]
