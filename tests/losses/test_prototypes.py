"""Prototypes, drawn voxels and cosines against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from semivox.losses.prototypes import (
    Drawn,
    PrototypeTerms,
    class_prototypes,
    cosines,
    distances_to_own,
    draw,
    draw_rows,
    inverse_norm,
    prototype_terms,
    safe_sqrt,
    voxel_rows,
)
from semivox.losses.supervised import onehot


@pytest.mark.parametrize(("shape", "dim"), [((2, 5, 7), 1), ((6, 4), 1), ((2, 3, 4), -1)])
def test_like_the_plain_formula_and_its_gradient(shape, dim):
    features = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse_norm(features, dim), 1 / features.square().sum(dim).sqrt())
    assert torch.autograd.gradcheck(lambda f: inverse_norm(f, dim), features.requires_grad_())


def test_a_vector_without_direction_has_neither_length_nor_gradient():
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-7, 0.0]], requires_grad=True)
    inverse = inverse_norm(features)
    assert inverse.tolist() == pytest.approx([0.0, 0.2, 0.0])
    inverse.sum().backward()
    assert features.grad.tolist() == [[0.0, 0.0], pytest.approx([-3 / 125, -4 / 125]), [0.0, 0.0]]


def scene(
    classes: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (2, 30, 5), one vector of them zero; labels; which voxels are reliable."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 30, 5, generator=generator, dtype=dtype)
    features[0, 3] = 0
    label = torch.randint(0, classes, (2, 30), generator=generator)
    reliable = torch.rand(2, 30, generator=generator) < 0.5
    return features, label, reliable


def of_each(label: torch.Tensor, classes: int) -> torch.Tensor:
    """(K, M) boolean: which voxels are of which class."""
    return onehot(label.flatten().unsqueeze(0), classes)[0]


def mask(drawn: Drawn, voxels: int) -> torch.Tensor:
    """(K, M) boolean: which voxels were drawn for which class, none of them twice."""
    found = torch.zeros(len(drawn.chosen), voxels, dtype=torch.int64)
    for own, chosen in zip(found, drawn.chosen, strict=True):
        own.index_add_(0, drawn.places, chosen.long())
    assert found.max() <= 1
    return found > 0


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
            unit(features[b, n]) for b, n in np.ndindex(*label.shape) if reliable[b, n] and label[b, n] == c
        ]
        if vectors:
            prototypes[c] = unit(sum(vectors) / len(vectors))
    pulled = 0.0
    for c, prototype in prototypes.items():
        distances = [
            math.dist(unit(features[b, n]), prototype)
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
    candidates = of_each(label, 3) & ~reliable.flatten()
    chosen = mask(draw(candidates, 0.3, torch.Generator().manual_seed(5)), 60)
    found = terms_of(features, label, reliable, 3, fraction=0.3)
    picked = chosen.any(dim=0).view(2, 30).numpy()
    expected, _ = naive(features.numpy(), label.numpy(), reliable.numpy(), picked, 3)
    assert 3 <= chosen.sum() < candidates.sum()
    assert found.pull.item() == pytest.approx(expected, abs=1e-6)


def test_distances_are_those_of_unit_vectors() -> None:
    """||f - mu||^2 = 2 - 2 cos: 0.5 -> 1, opposite -> 2."""
    features = torch.tensor([[2.0, 0.0], [1.0, math.sqrt(3)], [-3.0, 0.0], [0.0, 0.0]])
    prototypes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    distances = distances_to_own(features, prototypes, torch.zeros(4, dtype=torch.int64))
    assert distances.tolist() == pytest.approx([0.0, 1.0, 2.0, 1.0], abs=1e-4)


def test_rows_are_a_view_of_channels_last_memory_and_so_is_their_gradient() -> None:
    features = torch.randn(3, 4, 5, 6, 7).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    rows = voxel_rows(features, 1)
    assert rows.data_ptr() == features[1].data_ptr() and rows.is_contiguous()
    assert torch.equal(rows[1, 5 * 7 + 2], features[2, :, 0, 5, 2])
    (gradient,) = torch.autograd.grad(rows.square().sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(gradient[1:], 2 * features[1:]) and not gradient[0].any()
    assert torch.equal(voxel_rows(features.detach().contiguous(), 1), rows)


def test_half_precision_is_computed_in_float32() -> None:
    """Values that bfloat16 holds give the same terms in it, and the same gradient rounded to it."""
    features, label, reliable = scene(2, 2, torch.float32)
    half = features.bfloat16()
    found = []
    for values in (half.clone(), half.float()):
        terms = terms_of(values.requires_grad_(), label, reliable, 2)
        (gradient,) = torch.autograd.grad(terms.pull - terms.apart, values)
        found.append((terms.pull, terms.apart, gradient))
    assert found[0][0].dtype == torch.float32 and torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][2].float(), found[1][2], rtol=0.01, atol=1e-5)


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
    inside, outside = reliable.unsqueeze(2).expand_as(features), ~reliable.unsqueeze(2).expand_as(features)
    assert bool((to_pull[inside] == 0).all()) and bool((to_pull[outside] != 0).any())
    assert bool((to_apart[outside] == 0).all()) and bool((to_apart[inside] != 0).any())


def test_gradients_numerically() -> None:
    features, label, reliable = scene(3, 6)
    features[0, 3] = 1.0
    rows, members = features.flatten(0, 1), of_each(label, 3) & reliable.flatten()
    fixed = class_prototypes(rows, members)
    for function in (
        lambda values: terms_of(values, label, reliable, 3).apart,
        lambda values: class_prototypes(values.flatten(0, 1), members),
        lambda values: distances_to_own(values.flatten(0, 1), fixed, label.flatten()),
    ):
        assert torch.autograd.gradcheck(function, features.clone().requires_grad_())


def test_gradients_are_finite_at_distance_zero_and_for_zero_vectors() -> None:
    features = torch.zeros(1, 6, 3)
    features[0, :4, 0] = 1.0  # identical directions, and two vectors without any
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


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.9])
def test_draw_share_seed_and_at_least_one(fraction: float) -> None:
    label = torch.zeros(100_000, dtype=torch.int64)
    label[7] = 1
    candidates = of_each(label, 3)
    first, again, other = (draw(candidates, fraction, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.places, again.places) and torch.equal(first.chosen, again.chosen)
    assert not torch.equal(first.places, other.places)
    found = mask(first, 100_000)
    assert not bool((found & ~candidates).any())
    sizes = found.sum(dim=1).tolist()
    expected, deviation = 1e5 * fraction, math.sqrt(1e5 * fraction * (1 - fraction))
    assert abs(sizes[0] - expected) < 6 * deviation
    assert sizes[1:] == [1, 0]
    for part in found[0].view(10, -1).sum(dim=1):  # everywhere alike, to the very end
        assert abs(part - expected / 10) < 6 * deviation / math.sqrt(10)


@pytest.mark.parametrize("fraction", [0.01, 0.5])
def test_draw_is_uniform_and_independent(fraction: float) -> None:
    """Each voxel as often as the next, and neighbours together as often as chance has them."""
    candidates = torch.zeros(1, 40, dtype=torch.bool)
    candidates[0, 10:30] = True
    generator = torch.Generator().manual_seed(0)
    found = torch.stack([mask(draw(candidates, fraction, generator), 40)[0] for _ in range(2000)])
    assert not found[:, ~candidates[0]].any() and bool(found.any(dim=1).all())  # at least one each time
    counts = found[:, 10:30].sum(dim=0).float()
    expected = 2000 * (fraction + (1 - fraction) ** 20 / 20)
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    together = (found[:, 10:29] & found[:, 11:30]).sum() / 19
    assert together.item() == pytest.approx(2000 * fraction**2, abs=15)


def test_everything_is_drawn_on_request() -> None:
    candidates = of_each(torch.randint(0, 3, (50,)), 3)
    assert torch.equal(mask(draw(candidates, 1.0, torch.Generator()), 50), candidates)


def test_voxels_that_do_not_count_are_not_pulled() -> None:
    features, label, reliable = scene(3, 0)
    valid = torch.rand(label.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    generator = torch.Generator().manual_seed(5)
    found = prototype_terms(
        features, label, reliable, num_classes=3, fraction=1.0, generator=generator, valid=valid
    )
    chosen = (~reliable & valid).numpy()
    expected = naive(features.numpy(), label.numpy(), reliable.numpy(), chosen, 3)
    assert (found.pull.item(), found.apart.item()) == pytest.approx(expected, abs=1e-6)


def random_values(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_nothing_to_compare_scores_zero_with_finite_gradients() -> None:
    """Features after a ReLU may be zero vectors, and an absent class has a zero prototype."""
    features, prototypes = random_values(0, 1, 4, 3), random_values(1, 1, 2, 4)
    features[0, :, 1], prototypes[0, 1] = 0, 0
    features.requires_grad_()
    prototypes.requires_grad_()
    found = cosines(features, prototypes)
    assert bool((found[0, :, 1] == 0).all() and (found[0, 1] == 0).all())
    found.sum().backward()
    assert bool(torch.isfinite(features.grad).all() and torch.isfinite(prototypes.grad).all())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rows_are_of_their_class_and_different() -> None:
    label = torch.randint(0, 3, (2, 6, 5, 4), generator=seeded())
    rows = draw_rows(label, 3, 20, seeded(1))
    assert rows.voxel.shape == rows.chosen.shape == (3, 20) and rows.chosen.all()
    for c in range(3):
        assert (label.flatten()[rows.voxel[c]] == c).all()
        assert len(set(rows.voxel[c].tolist())) == 20
    assert not torch.equal(rows.voxel, draw_rows(label, 3, 20, seeded(2)).voxel)
    assert torch.equal(rows.voxel, draw_rows(label, 3, 20, seeded(1)).voxel)


def test_small_and_absent_classes() -> None:
    label = torch.zeros(2, 3, 3, 3, dtype=torch.int64)
    label[1, 0, 0, 1:] = 2
    rows = draw_rows(label, 4, 7, seeded())
    assert rows.chosen.sum(dim=1).tolist() == [7, 0, 2, 0]
    assert set(rows.voxel[2].tolist()) == {28, 29}  # repeated, so that no other class is among them
    assert set(rows.voxel[2][rows.chosen[2]].tolist()) == {28, 29}
    everything = draw_rows(label, 4, 10_000, seeded())
    assert everything.voxel.shape == (4, 54)
    assert sorted(everything.voxel[0][everything.chosen[0]].tolist()) == [
        n for n in range(54) if n not in (28, 29)
    ]


def test_draw_is_uniform() -> None:
    label = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1]).view(1, 2, 2, 2)
    generator = seeded()
    counts = torch.zeros(8)
    for _ in range(3000):
        counts[draw_rows(label, 2, 2, generator).voxel[1]] += 1
    assert counts[[0, 5]].sum() == 0 and counts.sum() == 6000
    assert counts[counts > 0].min() > 900 and counts.max() < 1100
