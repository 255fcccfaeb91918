from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from semivox.ops.prototypes import (
    PrototypeTerms,
    class_prototypes,
    distances_to_own,
    draw,
    inverse_norm,
    mean_pair_distance,
    prototype_terms,
    pull,
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


def terms_of(
    features: torch.Tensor,
    label: torch.Tensor,
    reliable: torch.Tensor,
    classes: int,
    *,
    fraction: float = 1.0,
) -> PrototypeTerms:
    generator = torch.Generator().manual_seed(5)
    return prototype_terms(
        features, label, reliable, num_classes=classes, fraction=fraction, generator=generator
    )


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_against_voxel_loop(classes: int, seed: int) -> None:
    features, label, reliable = scene(classes, seed)
    if seed == 3:
        reliable &= label != 1  # class 1 has no prototype
    found = terms_of(features, label, reliable, classes)
    expected = naive(features.numpy(), label.numpy(), reliable.numpy(), ~reliable.numpy(), classes)
    assert (found.pull.item(), found.apart.item()) == pytest.approx(expected, abs=1e-6)
    assert found.sizes.tolist() == [int((reliable & (label == c)).sum()) for c in range(classes)]


def test_drawn_part_against_voxel_loop() -> None:
    features, label, reliable = scene(3, 1)
    candidates = onehot(label, 3) & ~reliable.unsqueeze(1)
    chosen = draw(candidates, 0.3, torch.Generator().manual_seed(5))
    found = terms_of(features, label, reliable, 3, fraction=0.3)
    expected, _ = naive(features.numpy(), label.numpy(), reliable.numpy(), chosen.any(dim=1).numpy(), 3)
    assert 3 <= chosen.sum() < candidates.sum()
    assert found.pull.item() == pytest.approx(expected, abs=1e-6)


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


@pytest.mark.parametrize("everything", [True, False])
def test_all_or_no_voxels_reliable(everything: bool) -> None:
    """Nothing to pull, or no prototypes: 0 with gradient 0."""
    features, label, reliable = scene(2)
    features.requires_grad_()
    found = terms_of(features, label, torch.full_like(reliable, everything), 2)
    assert found.pull.item() == 0
    assert (found.apart.item() > 0) == everything
    (found.pull + 0 * found.apart).backward()
    assert features.grad is not None and bool((features.grad == 0).all())


def test_no_samples() -> None:
    found = terms_of(*(tensor[:0] for tensor in scene(2)), 2)
    assert found.pull.item() == found.apart.item() == 0


def test_pull_leaves_prototypes_alone_and_their_distance_is_live() -> None:
    features, label, reliable = scene(2)
    features.requires_grad_()
    found = terms_of(features, label, reliable, 2)
    (to_pull,) = torch.autograd.grad(found.pull, features, retain_graph=True)
    (to_apart,) = torch.autograd.grad(found.apart, features)
    inside, outside = reliable.unsqueeze(1).expand_as(features), ~reliable.unsqueeze(1).expand_as(features)
    assert bool((to_pull[inside] == 0).all()) and bool((to_pull[outside] != 0).any())
    assert bool((to_apart[outside] == 0).all()) and bool((to_apart[inside] != 0).any())


def test_gradients_numerically() -> None:
    features, label, reliable = scene(3, 6)
    features[0, :, 3] = 1.0
    members = onehot(label, 3) & reliable.unsqueeze(1)
    fixed = class_prototypes(features, inverse_norm(features), members)
    for function in (
        lambda values: terms_of(values, label, reliable, 3).apart,
        lambda values: distances_to_own(values, inverse_norm(values), fixed, label),
    ):
        assert torch.autograd.gradcheck(function, features.clone().requires_grad_())


def test_gradients_are_finite_at_distance_zero_and_for_zero_vectors() -> None:
    features = torch.zeros(1, 3, 6)
    features[0, 0, :4] = 1.0  # identical directions, and two vectors without any
    features.requires_grad_()
    label = torch.tensor([[0, 0, 1, 1, 0, 1]])
    reliable = torch.tensor([[True, False, True, False, False, False]])
    found = terms_of(features, label, reliable, 2)
    (found.pull - found.apart).backward()
    assert found.apart.item() == 0
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


@pytest.mark.parametrize("seed", range(3))
def test_other_label_for_the_voxels_that_are_pulled(seed: int) -> None:
    """Prototypes of one label, distances of another: the two parts of the naive version with each."""
    features, label, reliable = scene(3, seed)
    other = torch.randint(0, 3, label.shape, generator=torch.Generator().manual_seed(seed + 50))
    mixed = torch.where(reliable, label, other)
    generator = torch.Generator().manual_seed(5)
    found = prototype_terms(
        features, label, reliable, num_classes=3, fraction=1.0, generator=generator, query_label=other
    )
    expected = naive(features.numpy(), mixed.numpy(), reliable.numpy(), ~reliable.numpy(), 3)
    assert (found.pull.item(), found.apart.item()) == pytest.approx(expected, abs=1e-6)
    assert found.pull.item() != pytest.approx(terms_of(features, label, reliable, 3).pull.item(), abs=1e-3)


def test_voxels_that_do_not_count_are_not_pulled() -> None:
    features, label, reliable = scene(3, 0)
    counted = torch.rand(label.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    generator = torch.Generator().manual_seed(5)
    found = prototype_terms(
        features, label, reliable, num_classes=3, fraction=1.0, generator=generator, counted=counted
    )
    chosen = (~reliable & counted).numpy()
    expected = naive(features.numpy(), label.numpy(), reliable.numpy(), chosen, 3)
    assert (found.pull.item(), found.apart.item()) == pytest.approx(expected, abs=1e-6)
