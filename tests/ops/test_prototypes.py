from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semivox.ops.prototypes import (
    class_prototypes,
    distances_to_own,
    draw,
    inverse_norm,
    mean_pair_distance,
    pull,
    pull_and_spread,
    safe_sqrt,
)
from semivox.ops.supervised import onehot


def scene(
    classes: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (2, 5, 30), one vector of them zero; labels; which voxels are reliable."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 5, 30, generator=generator, dtype=dtype)
    features[0, :, 3] = 0
    label = torch.randint(0, classes, (2, 30), generator=generator)
    reliable = torch.rand(2, 30, generator=generator) < 0.5
    return features, label, reliable


def unit(vector: np.ndarray) -> np.ndarray:
    length = math.sqrt(sum(float(v) ** 2 for v in vector))
    return vector / length if length > 0 else vector


def naive(
    features: np.ndarray, label: np.ndarray, reliable: np.ndarray, chosen: np.ndarray, classes: int
) -> tuple[float, float]:
    """Pull and mean prototype distance, voxel by voxel."""
    prototypes: dict[int, np.ndarray] = {}
    for c in range(classes):
        vectors = [
            unit(features[b, :, n])
            for b, n in np.ndindex(*label.shape)
            if reliable[b, n] and label[b, n] == c
        ]
        if vectors:
            prototypes[c] = unit(sum(vectors) / len(vectors))
    pulled = 0.0
    for c, prototype in prototypes.items():
        distances = [
            math.dist(unit(features[b, :, n]), prototype)
            for b, n in np.ndindex(*label.shape)
            if chosen[b, n] and label[b, n] == c
        ]
        pulled += sum(distances) / len(distances) if distances else 0.0
    pairs = [math.dist(prototypes[c], prototypes[d]) for c in prototypes for d in prototypes if c < d]
    return pulled, sum(pairs) / len(pairs) if pairs else 0.0


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_against_voxel_loop(classes: int, seed: int) -> None:
    features, label, reliable = scene(classes, seed)
    if seed == 3:
        reliable &= label != 1  # class 1 has no prototype
    members, candidates = (
        onehot(label, classes) & reliable.unsqueeze(1),
        onehot(label, classes) & ~reliable.unsqueeze(1),
    )
    pulled, apart = pull_and_spread(
        features, label, members, candidates, fraction=1.0, generator=torch.Generator().manual_seed(0)
    )
    expected = naive(features.numpy(), label.numpy(), reliable.numpy(), ~reliable.numpy(), classes)
    assert (pulled.item(), apart.item()) == pytest.approx(expected, abs=1e-6)


def test_drawn_part_against_voxel_loop() -> None:
    features, label, reliable = scene(3, 1)
    candidates = onehot(label, 3) & ~reliable.unsqueeze(1)
    chosen = draw(candidates, 0.3, torch.Generator().manual_seed(5))
    pulled, _ = pull_and_spread(
        features,
        label,
        onehot(label, 3) & reliable.unsqueeze(1),
        candidates,
        fraction=0.3,
        generator=torch.Generator().manual_seed(5),
    )
    expected, _ = naive(features.numpy(), label.numpy(), reliable.numpy(), chosen.any(dim=1).numpy(), 3)
    assert 3 <= chosen.sum() < candidates.sum()
    assert pulled.item() == pytest.approx(expected, abs=1e-6)


def test_distances_are_those_of_unit_vectors() -> None:
    """||f - mu||^2 = 2 - 2 cos: 0.5 -> 1, opposite -> 2."""
    features = torch.tensor([[2.0, 0.0], [1.0, math.sqrt(3)], [-3.0, 0.0], [0.0, 0.0]]).T.unsqueeze(0)
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    label = torch.zeros(1, 4, dtype=torch.int64)
    distances = distances_to_own(features, inverse_norm(features), prototypes, label)
    assert distances.flatten().tolist() == pytest.approx([0.0, 1.0, 2.0, 1.0], abs=1e-4)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_layouts_agree(layout: str) -> None:
    features, label, reliable = scene(2, 2, torch.float32)
    if layout == "channels_last":
        features = features.transpose(1, 2).contiguous().transpose(1, 2)
    members = onehot(label, 2) & reliable.unsqueeze(1)
    prototypes = class_prototypes(features, inverse_norm(features), members)
    assert prototypes.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)
    distances = distances_to_own(features, inverse_norm(features), prototypes, label)
    direct = torch.nn.functional.normalize(features, dim=1) - prototypes[label].transpose(1, 2)
    torch.testing.assert_close(distances, direct.norm(dim=1), atol=2e-4, rtol=1e-4)


def test_absent_class_counts_nothing() -> None:
    features, label, reliable = scene(3)
    members = onehot(label, 3) & (reliable & (label != 2)).unsqueeze(1)
    prototypes = class_prototypes(features, inverse_norm(features), members)
    assert bool((prototypes[2] == 0).all())
    present = torch.tensor([True, True, False])
    expected = math.dist(prototypes[0].tolist(), prototypes[1].tolist())
    assert mean_pair_distance(prototypes, present).item() == pytest.approx(expected)
    distances, everything = torch.ones(2, 30), onehot(label, 3)
    assert pull(distances, everything, present).item() == pytest.approx(2.0)


@pytest.mark.parametrize("missing", ["members", "candidates", "both"])
def test_empty_sets_give_zero_and_zero_gradient(missing: str) -> None:
    features, label, reliable = scene(2)
    features.requires_grad_()
    members, candidates = onehot(label, 2) & reliable.unsqueeze(1), onehot(label, 2) & ~reliable.unsqueeze(1)
    pulled, apart = pull_and_spread(
        features,
        label,
        members & (missing == "candidates"),
        candidates & (missing == "members"),
        fraction=0.01,
        generator=torch.Generator(),
    )
    assert pulled.item() == 0
    assert (apart.item() == 0) == (missing != "candidates")
    (pulled + 0 * apart).backward()
    assert features.grad is not None and bool((features.grad == 0).all())


def test_no_samples() -> None:
    features, label, reliable = (tensor[:0] for tensor in scene(2))
    masks = onehot(label, 2) & reliable.unsqueeze(1)
    pulled, apart = pull_and_spread(features, label, masks, masks, fraction=0.01, generator=torch.Generator())
    assert pulled.item() == apart.item() == 0


def test_pull_leaves_prototypes_alone_and_spread_is_live() -> None:
    features, label, reliable = scene(2)
    features.requires_grad_()
    members, candidates = onehot(label, 2) & reliable.unsqueeze(1), onehot(label, 2) & ~reliable.unsqueeze(1)
    pulled, apart = pull_and_spread(
        features, label, members, candidates, fraction=1.0, generator=torch.Generator().manual_seed(0)
    )
    (to_pulled,) = torch.autograd.grad(pulled, features, retain_graph=True)
    (to_apart,) = torch.autograd.grad(apart, features)
    inside, outside = reliable.unsqueeze(1).expand_as(features), ~reliable.unsqueeze(1).expand_as(features)
    assert bool((to_pulled[inside] == 0).all()) and bool((to_pulled[outside] != 0).any())
    assert bool((to_apart[outside] == 0).all()) and bool((to_apart[inside] != 0).any())


def test_gradients_numerically() -> None:
    features, label, reliable = scene(3, 6)
    features[0, :, 3] = 1.0
    members, candidates = onehot(label, 3) & reliable.unsqueeze(1), onehot(label, 3) & ~reliable.unsqueeze(1)

    def pulled_and_apart(values: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            pull_and_spread(values, label, members, candidates, fraction=1.0, generator=torch.Generator())
        )[1]

    def distances(values: torch.Tensor) -> torch.Tensor:
        prototypes = class_prototypes(features, inverse_norm(features), members)
        return distances_to_own(values, inverse_norm(values), prototypes, label)

    assert torch.autograd.gradcheck(pulled_and_apart, features.clone().requires_grad_())
    assert torch.autograd.gradcheck(distances, features.clone().requires_grad_())


def test_gradients_are_finite_at_distance_zero_and_for_zero_vectors() -> None:
    features = torch.zeros(1, 3, 6)
    features[0, 0, :4] = 1.0  # identical directions, and two vectors without any
    features.requires_grad_()
    label = torch.tensor([[0, 0, 1, 1, 0, 1]])
    reliable = torch.tensor([[True, False, True, False, False, False]])
    pulled, apart = pull_and_spread(
        features,
        label,
        onehot(label, 2) & reliable.unsqueeze(1),
        onehot(label, 2) & ~reliable.unsqueeze(1),
        fraction=1.0,
        generator=torch.Generator(),
    )
    (pulled - apart).backward()
    assert apart.item() == 0
    assert features.grad is not None and bool(torch.isfinite(features.grad).all())


def test_safe_sqrt() -> None:
    values = torch.tensor([-1e-7, 0.0, 4.0], requires_grad=True)
    roots = safe_sqrt(values)
    roots.sum().backward()
    assert roots.tolist() == [0, 0, 2]
    assert values.grad is not None and values.grad.tolist() == [0, 0, 0.25]


def test_draw_share_seed_and_at_least_one() -> None:
    label = torch.zeros(2, 50_000, dtype=torch.int64)
    label[0, 7] = 1
    candidates = onehot(label, 3)
    first = draw(candidates, 0.01, torch.Generator().manual_seed(1))
    assert torch.equal(first, draw(candidates, 0.01, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, draw(candidates, 0.01, torch.Generator().manual_seed(2)))
    assert not bool((first & ~candidates).any())
    sizes = first.sum(dim=(0, 2)).tolist()
    assert 800 < sizes[0] < 1200  # 99,999 candidates, expected 1000, standard deviation 31
    assert sizes[1:] == [1, 0]
    per_sample = first[:, 0].sum(dim=1)
    assert per_sample.min() > 350


def test_draw_is_uniform() -> None:
    candidates = onehot(torch.zeros(1, 20, dtype=torch.int64), 1)
    generator = torch.Generator().manual_seed(0)
    counts = sum(draw(candidates, 0.01, generator).int() for _ in range(2000)).flatten()  # type: ignore[union-attr]
    assert counts.sum() >= 2000  # at least one each time
    assert counts.min() > 60 and counts.max() < 160  # expected about 110
