"""`bcp` and `sdcl`: both phases against numpy, the teacher, and what each term trains."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from gradients import trained_by
from torch import Tensor, nn

from semivox.losses.components import largest_components
from semivox.losses.mixing import cuboid_mask
from semivox.losses.prediction import Prediction
from semivox.losses.schedules import make_stages
from semivox.methods import create
from semivox.methods.base import Batch
from semivox.methods.bcp import BCP
from semivox.methods.sdcl import SDCL
from semivox.nets import NetFactory

Factory = Callable[..., Any]
SHAPE = (6, 5, 4)


def voxelwise(
    classes: int,
    kind: Any = BCP,
    *,
    labeled: int = 4,
    unlabeled: int = 4,
    valid: Tensor | None = None,
    **options: Any,
) -> tuple[Any, Batch, Batch]:
    """A method whose networks are different 1x1x1 convolutions in float64."""
    torch.manual_seed(0)
    method = kind(kind.Config.model_validate(options))
    for name in ("net", "teacher") if kind is BCP else ("net_a", "net_b", "teacher"):
        net = nn.Conv3d(2, classes, kernel_size=1).double()
        with torch.no_grad():
            net.weight *= 3
        setattr(method, name, net)
    with torch.no_grad():
        method.teacher.requires_grad_(False).bias[0] += 1.5  # little foreground, in several pieces
    image = torch.randn(labeled + unlabeled, 2, *SHAPE, dtype=torch.float64)
    label = torch.randint(0, classes, (labeled, *SHAPE))
    return method, Batch(image[:labeled], label, valid=valid), Batch(image[labeled:], None)


def softmax(net: nn.Module, image: np.ndarray) -> np.ndarray:
    """Probabilities (B, K, X, Y, Z) of a 1x1x1 convolution, without torch's softmax."""
    weight = net.weight.detach().numpy()[:, :, 0, 0, 0]  # type: ignore[operator,union-attr]
    logits = np.einsum("kc,bcxyz->bkxyz", weight, image) + net.bias.detach().numpy()[:, None, None, None]  # type: ignore
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def loss_on(p: np.ndarray, label: np.ndarray, region: np.ndarray) -> float:
    """(CE + Dice) / 2 over the chosen voxels of each sample."""
    samples, classes = p.shape[:2]
    dices = []
    entropy = 0.0
    for b in range(samples):
        truth = label[b][region]
        for c in range(classes):
            q = p[b, c][region]
            dices.append(1 - (2 * q[truth == c].sum() + 1e-5) / (q.sum() + (truth == c).sum() + 1e-5))
            entropy -= np.log(q[truth == c]).sum()
    return float(0.5 * (np.mean(dices) + entropy / (samples * region.sum())))


def tiny(classes: int = 3, **options: Any) -> tuple[Any, Batch, Batch]:
    torch.manual_seed(0)
    method: Any = create("bcp", options, NetFactory(1, classes, width=2)).train()
    image = torch.randn(8, 1, 16, 16, 32)
    label = torch.randint(0, classes, (4, 16, 16, 32))
    return method, Batch(image[:4], label), Batch(image[4:], None)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_both_mixtures_against_numpy(step: Factory, classes: int, alpha: float) -> None:
    method, labeled, unlabeled = voxelwise(classes, alpha=alpha)
    losses = method.losses(labeled, unlabeled, step(5, 10, seed=3))
    mask = cuboid_mask(SHAPE, 2 / 3, torch.Generator().manual_seed(3)).numpy()
    image, other, label = labeled.image.numpy(), unlabeled.image.numpy(), labeled.target.numpy()
    hard = torch.from_numpy(softmax(method.teacher, other).argmax(axis=1))
    pseudo = largest_components(hard, classes, 26).numpy()
    assert (pseudo != hard.numpy()).any()
    first = softmax(method.net, image[:2] * mask + other[:2] * (1 - mask))
    second = softmax(method.net, other[2:] * mask + image[2:] * (1 - mask))
    sup = loss_on(first, label[:2], mask) + loss_on(second, label[2:], ~mask)
    mix = loss_on(first, pseudo[:2], ~mask) + loss_on(second, pseudo[2:], mask)
    assert losses["sup"].item() == pytest.approx(sup, abs=1e-6)
    assert losses["mix"].item() == pytest.approx(alpha * mix, abs=1e-6)


def test_pretraining_against_numpy(step: Factory) -> None:
    method, labeled, unlabeled = voxelwise(3)
    losses = method.losses(labeled, unlabeled, step(0, 10, seed=3))
    mask = cuboid_mask(SHAPE, 2 / 3, torch.Generator().manual_seed(3)).numpy()
    image, label = labeled.image.numpy(), labeled.target.numpy()
    p = softmax(method.net, image[:2] * mask + image[2:] * (1 - mask))
    expected = loss_on(p, np.where(mask, label[:2], label[2:]), np.ones(SHAPE, dtype=bool))
    assert losses["sup"].item() == pytest.approx(expected, abs=1e-6)
    assert losses["mix"].item() == 0


def test_pretraining_is_2000_of_17000_iterations(step: Factory) -> None:
    method, labeled, unlabeled = voxelwise(2)
    assert method.losses(labeled, unlabeled, step(1999, 17000))["mix"].item() == 0
    assert method.losses(labeled, unlabeled, step(2000, 17000))["mix"].item() > 0
    without, labeled, unlabeled = voxelwise(2, pretraining=0)
    assert without.losses(labeled, unlabeled, step(0, 10))["mix"].item() > 0


@pytest.mark.parametrize(
    ("pretraining", "total", "border"), [(2000 / 17000, 17000, 2000), (0.3, 7, 3), (0.9, 3, 3)]
)
def test_a_fresh_optimiser_begins_where_pseudo_labels_do(
    step: Factory, pretraining: float, total: int, border: int
) -> None:
    method, labeled, unlabeled = voxelwise(2, pretraining=pretraining, fresh_optimizer=True)
    assert method.stages(total) == ((border / total, 1 - border / total) if border < total else (1.0,))
    assert make_stages(method.stages(total), total)[-1].start == (border if border < total else 0)
    assert method.losses(labeled, unlabeled, step(border - 1, total))["mix"].item() == 0
    assert method.losses(labeled, unlabeled, step(border, total))["mix"].item() > 0
    assert voxelwise(2, pretraining=pretraining)[0].stages(total) == (1.0,)
    assert voxelwise(2, pretraining=0, fresh_optimizer=True)[0].stages(total) == (1.0,)


def test_teacher_becomes_the_students_copy_and_then_its_average(step: Factory) -> None:
    method, labeled, unlabeled = tiny(pretraining=0.3)
    optimiser = torch.optim.SGD(method.net.parameters(), lr=0.05)

    def train(iteration: int) -> None:
        at = step(iteration, 10)
        optimiser.zero_grad()
        torch.stack(list(method.losses(labeled, unlabeled, at).values())).sum().backward()
        optimiser.step()
        method.after_step(at)

    for iteration in range(3):
        train(iteration)
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(value, method.net.state_dict()[name]), name
    before = deepcopy(method.teacher.state_dict())
    train(3)
    student, teacher = dict(method.net.named_parameters()), dict(method.teacher.named_parameters())
    for name, value in teacher.items():  # 0.99 from the first step on: no warm-up
        torch.testing.assert_close(value, 0.99 * before[name] + 0.01 * student[name])
        assert not value.requires_grad
    buffers = dict(method.teacher.named_buffers())
    running = next(name for name in buffers if name.endswith("running_mean"))
    assert not torch.equal(buffers[running], before[running])  # the teacher's own batches
    assert not torch.equal(buffers[running], dict(method.net.named_buffers())[running])


def test_teacher_in_evaluation_mode(step: Factory) -> None:
    method, labeled, unlabeled = tiny(teacher_mode="eval", pretraining=0)
    assert method.net.training and not method.teacher.training
    first, second = (method.losses(labeled, unlabeled, step(5)) for _ in range(2))
    method.after_step(step(5))
    teacher, student = dict(method.teacher.named_buffers()), dict(method.net.named_buffers())
    assert all(torch.equal(value, student[name]) for name, value in teacher.items())
    assert first["mix"] != second["mix"]  # the student has dropout
    assert tiny()[0].teacher.training and not tiny()[0].eval().teacher.training


def test_each_patch_meets_another_one(step: Factory) -> None:
    """Two student and two teacher passes with half of the patches each, as published."""
    method, labeled, unlabeled = tiny()
    sizes: list[tuple[str, int]] = []
    for name in ("net", "teacher"):
        getattr(method, name).encoder.register_forward_hook(
            lambda _, inputs, __, name=name: sizes.append((name, len(inputs[0])))
        )
    method.losses(labeled, unlabeled, step(5))
    assert sorted(sizes) == [("net", 2), ("net", 2), ("teacher", 2), ("teacher", 2)]


@pytest.mark.parametrize(("labeled", "unlabeled"), [(4, 0), (0, 4), (1, 1), (3, 4), (4, 1), (1, 3), (0, 0)])
@pytest.mark.parametrize("iteration", [0, 5])
def test_any_number_of_patches(step: Factory, labeled: int, unlabeled: int, iteration: int) -> None:
    method, first, second = voxelwise(2, labeled=labeled, unlabeled=unlabeled)
    losses = method.losses(first, second, step(iteration))
    torch.stack([loss.float() for loss in losses.values()]).sum().backward()
    assert (losses["sup"].item() > 0) == (labeled > 0)
    assert (losses["mix"].item() > 0) == (labeled > 0 and unlabeled > 0 and iteration > 0)
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


@pytest.mark.parametrize("term", ["sup", "mix"])
def test_each_term_trains_the_student_only(step: Factory, term: str) -> None:
    method, labeled, unlabeled = tiny()
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    names = trained_by(method.losses(labeled, unlabeled, step(5))[term], method)
    assert {name.split(".")[1] for name in names} == {"encoder", "decoder", "head"}
    assert all(name.startswith("net.") for name in names)


def test_largest_component_is_an_option(step: Factory) -> None:
    shares = []
    for options in ({}, {"largest_component": False}, {"neighbours": 6}):
        method, labeled, unlabeled = voxelwise(2, **options)
        method.losses(labeled, unlabeled, at := step(5))
        shares.append(at.notes["pseudo_foreground"].item())
    assert shares[1] > shares[0] > shares[2]


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
def test_corrections_against_numpy(step: Factory, classes: int, partial: bool) -> None:
    valid = torch.rand(4, *SHAPE) > 0.3 if partial else None
    method, labeled, unlabeled = voxelwise(classes, SDCL, valid=valid)
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

    def corrected(p: float, label: int, taught: bool) -> list[float]:
        own = Prediction.of(torch.tensor([1 - p, p]).log().view(1, 2, 1, 1, 1))
        weight, everywhere = torch.tensor(0.5 if taught else 1.0), torch.ones(1, 1, 1, 1, dtype=torch.bool)
        found = SDCL._correction(own, torch.full((1, 1, 1, 1), label), weight, everywhere)
        return [value.item() for value in found]

    assert corrected(0.7, 1, taught=False) == pytest.approx([0.09, 0.0], abs=1e-6)
    assert corrected(0.1, 1, taught=False) == pytest.approx([0.81, 1.203973], abs=1e-6)
    assert corrected(0.1, 1, taught=True) == pytest.approx([0.405, 0.6019864], abs=1e-6)
    assert corrected(0.4999, 1, taught=False)[1] == pytest.approx(0.693147, abs=1e-5)


def test_pretraining_of_two_students(step: Factory) -> None:
    """3200 of 14200 iterations on labeled mixtures alone."""
    method, labeled, unlabeled = voxelwise(3, SDCL)
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
    method, labeled, unlabeled = voxelwise(2, SDCL)
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
