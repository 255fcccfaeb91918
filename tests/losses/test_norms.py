"""Inverse lengths and their gradient, beside the plain formula."""

from __future__ import annotations

import pytest
import torch

from semivox.losses.norms import inverse_norm


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
    assert features.grad.tolist() == [
        [0.0, 0.0],
        pytest.approx([-3 / 125, -4 / 125]),
        [0.0, 0.0],
    ]
