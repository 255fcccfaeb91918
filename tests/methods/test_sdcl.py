"""`sdcl`: both phases and both corrections against numpy, the teacher, and what each term trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from plain_numpy import loss_on, softmax, trained_by
from torch import Tensor, nn

from semivox.losses.components import largest_components
from semivox.losses.mixing import cuboid_mask
from semivox.losses.prediction import Prediction
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.bcp import Mixture
from semivox.methods.sdcl import SDCL
from semivox.nets import NetFactory

Factory = Callable[..., Any]
SHAPE = (6, 5, 4)


def voxelwise(classes: int, *, valid: Tensor | None = None, **options: Any) -> tuple[SDCL, Batch, Batch]:
    """An `SDCL` whose networks are three different 1x1x1 convolutions in float64."""
    torch.manual_seed(0)
    method = SDCL(SDCL.Config.model_validate(options))
    method.net_a, method.net_b = (nn.Conv3d(2, classes, kernel_size=1).double() for _ in range(2))
    method.teacher = nn.Conv3d(2, classes, kernel_size=1).double().requires_grad_(False)
    with torch.no_grad():
        for net in (method.net_a, method.net_b, method.teacher):
            net.weight *= 3
        method.teacher.bias[0] += 1.5
    image = torch.randn(8, 2, *SHAPE, dtype=torch.float64)
    label = torch.randint(0, classes, (4, *SHAPE))
    return method, Batch(image[:4], label, valid=valid), Batch(image[4:], None)


def corrections(
    own: np.ndarray, other: np.ndarray, label: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    """Voxel by voxel: squared error where the students differ, entropy where `own` is also wrong."""
    errors, entropies = [], []
    for b, *place in np.ndindex(*label.shape):
        p, q = own[(b, slice(None), *place)], other[(b, slice(None), *place)]
        if weight[(b, *place)] == 0 or p.argmax() == q.argmax():
            continue
        truth = np.eye(len(p))[label[(b, *place)]]
        errors.append(weight[(b, *place)] * np.mean((p - truth) ** 2))
        if p.argmax() != label[(b, *place)]:
            entropies.append(-weight[(b, *place)] * np.mean(np.log(p)))
    return float(np.mean(errors)), float(np.mean(entropies))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("partial", [False, True])
def test_self_training_against_numpy(step: Factory, classes: int, partial: bool) -> None:
    valid = torch.rand(4, *SHAPE) > 0.3 if partial else None
    method, labeled, unlabeled = voxelwise(classes, valid=valid)
    losses = method.losses(labeled, unlabeled, step(5, 10, seed=3))
    mask = cuboid_mask(SHAPE, 2 / 3, torch.Generator().manual_seed(3)).numpy()
    image, free, label = labeled.image.numpy(), unlabeled.image.numpy(), labeled.target.numpy()
    counted = np.ones(label.shape, dtype=bool) if valid is None else valid.numpy()
    hard = torch.from_numpy(softmax(method.teacher, free).argmax(axis=1))
    pseudo = largest_components(hard, classes, 26).numpy()
    expected = dict.fromkeys(("sup", "mix", "mse", "entropy"), 0.0)
    for known, rows, others in ((mask, slice(0, 2), slice(0, 2)), (~mask, slice(2, 4), slice(2, 4))):
        mixed = np.where(known, image[rows], free[others])
        target = np.where(known, label[rows], pseudo[others])
        weight = np.where(known, counted[rows], 0.5)
        p = [softmax(net, mixed) for net in (method.net_a, method.net_b)]
        for own, other in (p, p[::-1]):
            if not partial:
                expected["sup"] += loss_on(own, target, known)
                expected["mix"] += 0.5 * loss_on(own, target, ~known)
            error, entropy = corrections(own, other, target, weight)
            expected["mse"] += 0.5 * error
            expected["entropy"] += 0.05 * entropy
    for name in ("mse", "entropy") if partial else expected:
        assert losses[name].item() == pytest.approx(expected[name], abs=1e-6), name


def test_published_values_of_the_corrections() -> None:
    """e for p_true = 0.7 is 0.09; h is 1.203973 for (0.9, 0.1), and 0.693147, its least, for (0.5, 0.5)."""
    method, _, _ = voxelwise(2)

    def corrected(p: float, label: int, taught: bool) -> list[float]:
        own = Prediction.of(torch.tensor([1 - p, p]).log().view(1, 2, 1, 1, 1))
        where = torch.full((1, 1, 1), taught)
        mixture = Mixture(own.probs, torch.full((1, 1, 1, 1), label), ~where, where)
        found = method._correction(own, mixture, torch.ones(1, 1, 1, 1, dtype=torch.bool))
        return [value.item() for value in found]

    assert corrected(0.7, 1, taught=False) == pytest.approx([0.09, 0.0], abs=1e-6)
    assert corrected(0.1, 1, taught=False) == pytest.approx([0.81, 1.203973], abs=1e-6)
    assert corrected(0.1, 1, taught=True) == pytest.approx([0.405, 0.6019864], abs=1e-6)
    assert corrected(0.4999, 1, taught=False)[1] == pytest.approx(0.693147, abs=1e-5)


def test_pretraining_against_numpy(step: Factory) -> None:
    """3200 of 14200 iterations on labeled mixtures alone."""
    method, labeled, unlabeled = voxelwise(3)
    losses = method.losses(labeled, unlabeled, step(3199, 14200, seed=3))
    mask = cuboid_mask(SHAPE, 2 / 3, torch.Generator().manual_seed(3)).numpy()
    image, label = labeled.image.numpy(), labeled.target.numpy()
    mixed, target = image[:2] * mask + image[2:] * (1 - mask), np.where(mask, label[:2], label[2:])
    whole = np.ones(SHAPE, dtype=bool)
    expected = sum(loss_on(softmax(net, mixed), target, whole) for net in (method.net_a, method.net_b))
    assert losses["sup"].item() == pytest.approx(expected, abs=1e-6)
    assert [losses[name].item() for name in ("mix", "mse", "entropy")] == [0, 0, 0]
    later = method.losses(labeled, unlabeled, step(3200, 14200, seed=3))
    assert all(later[name].item() > 0 for name in ("mix", "mse", "entropy"))


def test_students_that_agree_are_not_corrected(step: Factory) -> None:
    method, labeled, unlabeled = voxelwise(2)
    method.net_b.load_state_dict(method.net_a.state_dict())
    losses = method.losses(labeled, unlabeled, step(5))
    assert losses["mse"].item() == losses["entropy"].item() == 0 < losses["mix"].item()


def test_the_teacher_follows_a_alone(step: Factory) -> None:
    torch.manual_seed(0)
    method: Any = create("sdcl", {}, NetFactory(1, 2, width=2)).train()
    with torch.no_grad():
        for parameter in method.net_a.parameters():
            parameter.add_(1)
    old = next(method.teacher.parameters()).clone()
    method.after_step(step(5))
    first = next(method.net_a.parameters())
    torch.testing.assert_close(next(method.teacher.parameters()), 0.99 * old + 0.01 * first)
    method.after_step(step(0))
    assert torch.equal(next(method.teacher.parameters()), first)


def test_each_term_trains_both_students_and_never_the_teacher(step: Factory) -> None:
    """Narrower students may agree everywhere, so that nothing is corrected."""
    torch.manual_seed(0)
    method: Any = create("sdcl", {}, NetFactory(1, 2, width=4)).train()
    batch = torch.randn(8, 1, 16, 16, 32)
    label = (batch[:4, 0] > 0).long()
    losses = method.losses(Batch(batch[:4], label), Batch(batch[4:], None), step(5))
    for name in ("sup", "mix", "mse", "entropy"):
        assert {key.split(".")[0] for key in trained_by(losses[name], method)} == {"net_a", "net_b"}, name


def test_sizes_of_the_published_students() -> None:
    """With instance normalisation that learns no scale, as released."""
    with torch.device("meta"):
        method: Any = create("sdcl", {}, NetFactory(1, 2, norm="instance"))
    sizes = [sum(p.numel() for p in net.parameters()) for net in (method.net_a, method.net_b, method.teacher)]
    assert sizes == [9_443_266, 17_920_018, 9_443_266]
